-- Room: a body is stored once a mail, however many agents it is for, and what is old can go. docs/operator.md, "Room".
-- No row of a table of bodies is rewritten here: a large database migrates in moments.

set local statement_timeout = 0;                         -- indexes of a large ledger take their time
set local lock_timeout = 0;

alter table messages
    add column body_id      uuid,                        -- of a body that several messages share; null: it has its own
    add column body_gone_at timestamptz;                 -- the body went by its age; the row stays, and its threading
alter table message_bodies drop constraint message_bodies_message_row_fkey;  -- or a shared one's key
create index messages_shared on messages (body_id) where body_id is not null;
create index messages_unanswered on messages (agent_id, at)
    where direction = 'in' and turn_id is null;          -- quarantine, automatic mail, reports: what strangers can fill
create index messages_unanswered_age on messages (at) where direction = 'in' and turn_id is null;
create index messages_bodies_age on messages (at, id) where body_gone_at is null;
create index turns_ended_age on turns (ended_at) where ended_at is not null;
create index logs_age on logs (at);

alter table agents
    add column ended_at  timestamptz,                    -- seen to be destroyed
    add column purged_at timestamptz;                    -- its mail and what it did are deleted

-- Calls of months long past, as sums: what `calls` said of them before its rows went.
create table call_months (
    month         date not null,                         -- its first day
    agent_id      uuid not null,
    vendor        text not null,
    model         text not null,
    byok_vendor   text not null,
    calls         bigint not null,
    input         bigint not null,
    output        bigint not null,
    cached        bigint not null,
    cache_written bigint not null,
    reasoning     bigint not null,
    estimated     bigint not null,                       -- how many of the calls
    cost          bigint not null,
    last_at       timestamptz not null,
    primary key (agent_id, month, vendor, model, byok_vendor)
);
create index calls_age on calls (day);

-- Still append-only: but for `calls_roll_up`, which writes down what it takes away in the same transaction.
create or replace function calls_are_append_only() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and current_setting('tinyfat.rolling_up', true) = 'on' then
        return null;
    end if;
    raise exception 'the ledger of calls is append-only: % refused', lower(tg_op) using errcode = 'restrict_violation';
end $$;

-- At most p_limit calls of whole months before p_before's become sums. Returns how many. Refused for the running month
-- and the one before it: the sums of the caps are made from their rows.
create function calls_roll_up(p_before date, p_limit int) returns int language plpgsql as $$
declare
    v_before date := date_trunc('month', p_before)::date;
    v_done int;
begin
    if v_before > (date_trunc('month', now() at time zone 'utc') - interval '1 month')::date then
        raise exception 'calls since % are not old enough to become sums', v_before using errcode = 'restrict_violation';
    end if;
    perform set_config('tinyfat.rolling_up', 'on', true);
    with old as (
        select call_id from calls where day < v_before order by day limit p_limit
    ), gone as (
        delete from calls using old where calls.call_id = old.call_id returning calls.*
    ), sums as (
        insert into call_months as known
        select date_trunc('month', day)::date, agent_id, vendor, model, byok_vendor, count(*), sum(input), sum(output),
            sum(cached), sum(cache_written), sum(reasoning), count(*) filter (where estimated), sum(cost), max(at)
        from gone group by 1, 2, 3, 4, 5
        on conflict (agent_id, month, vendor, model, byok_vendor) do update set
            calls = known.calls + excluded.calls, input = known.input + excluded.input,
            output = known.output + excluded.output, cached = known.cached + excluded.cached,
            cache_written = known.cache_written + excluded.cache_written,
            reasoning = known.reasoning + excluded.reasoning, estimated = known.estimated + excluded.estimated,
            cost = known.cost + excluded.cost, last_at = greatest(known.last_at, excluded.last_at)
    )
    select count(*) into v_done from gone;
    perform set_config('tinyfat.rolling_up', 'off', true);
    return v_done;
end $$;
