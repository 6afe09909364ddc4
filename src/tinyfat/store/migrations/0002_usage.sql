-- The money side of inference: keys, budgets, holds, the ledger of calls. All money is in integer nano-dollars.
-- docs/architecture.md tells the story; domain/usage.py has the same arithmetic in Python.

create table relay_keys (
    id         uuid primary key default gen_random_uuid(),
    agent_id   uuid not null references agents (id),
    machine_id uuid,                                    -- the machine it was given to; null: made by hand
    hash       bytea not null unique,                   -- SHA-256: a key is 256 random bits, so one round suffices
    prefix     text not null,                           -- the first characters, to tell keys apart
    label      text not null default '',
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);
create index relay_keys_agent on relay_keys (agent_id);

-- What an agent may spend, and the sums the caps are judged by. 9223372036854775807 says 'no cap': a null would be
-- neither over nor under anything, so there is none. The sums are those of `day` and its month, UTC.
create table budgets (
    agent_id      uuid primary key references agents (id),
    month_cap     bigint not null check (month_cap >= 0),
    month_included boolean not null default true,       -- month_cap is our included inference: it bounds what we pay.
                                                        -- false: somebody has set it, and it bounds every call
    day_cap       bigint not null check (day_cap >= 0),
    turn_cap      bigint not null check (turn_cap >= 0),
    turn_calls    bigint not null check (turn_calls >= 0),
    killed        boolean not null default false,
    byok_vendors  text[] not null default '{}',         -- whose keys the owner brought, the newest first
    day           date not null default '0001-01-01',   -- of the sums below
    month_spent   bigint not null default 0 check (month_spent >= 0),
    month_ours    bigint not null default 0 check (month_ours >= 0),  -- of it, what no owner's own key paid
    day_spent     bigint not null default 0 check (day_spent >= 0),
    month_calls   bigint not null default 0 check (month_calls >= 0),
    reserved      bigint not null default 0 check (reserved >= 0),
    warned        int not null default 0                -- the highest of 50, 80, 100 % told this month
) with (fillfactor = 50);                               -- every call updates its row: room to do it in place

insert into budgets (agent_id, month_cap, day_cap, turn_cap, turn_calls)
    select id, 8000000000, 9223372036854775807, 1000000000, 200 from agents where state <> 'destroyed';

-- Money promised to calls under way. A hold ends once: settled, released or swept. Few rows live here at a time, and each
-- lives for one call: so no index but the key.
create table holds (
    call_id             uuid primary key,
    agent_id            uuid not null,
    key_id              uuid not null,
    executor            text not null,                  -- the process that makes the call: `executors` tells if it lives
    amount              bigint not null check (amount >= 0),
    surface             text not null,
    alias               text not null,
    vendor              text not null,
    model               text not null,
    byok_vendor         text not null,
    price_input         bigint not null,
    price_output        bigint not null,
    price_cached        bigint not null,
    price_cache_written bigint not null,
    price_cache_written_1h bigint not null,
    price_source        text not null,
    turn                text not null,
    conversation        text not null,
    at                  timestamptz not null
) with (fillfactor = 70);

-- One row a call, for ever.
create table calls (
    call_id             uuid primary key,
    agent_id            uuid not null,
    key_id              uuid not null,
    executor            text not null,
    surface             text not null,
    alias               text not null,
    vendor              text not null,
    model               text not null,
    byok_vendor         text not null,                  -- '': paid by us
    input               bigint not null check (input >= 0),
    output              bigint not null check (output >= 0),
    cached              bigint not null check (cached >= 0),
    cache_written       bigint not null check (cache_written >= 0),
    cache_written_1h    bigint not null check (cache_written_1h >= 0),
    reasoning           bigint not null check (reasoning >= 0),
    estimated           boolean not null,
    price_input         bigint not null,
    price_output        bigint not null,
    price_cached        bigint not null,
    price_cache_written bigint not null,
    price_cache_written_1h bigint not null,
    price_source        text not null,
    cost                bigint not null check (cost >= 0),
    held                bigint not null,
    outcome             text not null,
    turn                text not null,
    conversation        text not null,
    latency_ms          bigint not null,
    day                 date not null,                  -- whose sums it is in
    reserved_at         timestamptz not null,
    at                  timestamptz not null
);
create index calls_day on calls (agent_id, day) include (cost, byok_vendor);
create index calls_turn on calls (agent_id, turn) where turn <> '';

create function calls_are_append_only() returns trigger language plpgsql as $$
begin
    raise exception 'the ledger of calls is append-only: % refused', lower(tg_op) using errcode = 'restrict_violation';
end $$;
create trigger calls_append_only before update or delete or truncate on calls
    for each statement execute function calls_are_append_only();

-- What a turn of an agent has cost so far.
create table turn_sums (
    agent_id uuid not null,
    turn     text not null,
    spent    bigint not null default 0,
    reserved bigint not null default 0,
    calls    bigint not null default 0,
    at       timestamptz not null,
    primary key (agent_id, turn)
) with (fillfactor = 50);

-- What the owner is to be told by mail: each kind once a month.
create table usage_alerts (
    id          uuid primary key default gen_random_uuid(),
    agent_id    uuid not null references agents (id),
    month       date not null,
    kind        text not null check (kind in ('50', '80', '100', 'day', 'turn-money', 'turn-calls')),
    spent       bigint not null,
    reserved    bigint not null,
    cap         bigint not null,
    amount      bigint not null,                        -- of the call that was refused; 0: none was
    at          timestamptz not null,
    message_row uuid references messages (id),          -- null: not yet written
    unique (agent_id, month, kind)
);
create index usage_alerts_open on usage_alerts (at) where message_row is null;

-- The owner's own keys, each sealed with a data key of its own, which the master key wraps (AES-256-GCM).
create table byok_keys (
    agent_id    uuid not null references agents (id),
    vendor      text not null,
    key_version int not null,                           -- of the master key
    wrapped_key bytea not null,
    ciphertext  bytea not null,
    hint        text not null,                          -- its last four characters
    created_at  timestamptz not null default now(),
    wrapped_at  timestamptz not null default now(),
    primary key (agent_id, vendor)
);

-- The sums of today: where the day (and with it perhaps the month) is another than the row's, they are made anew from
-- the calls themselves. So a clock that was wrong for a while, forwards or back, mends itself.
create function budget_on(b budgets, p_day date) returns budgets language plpgsql stable as $$
begin
    if b.day = p_day then
        return b;
    end if;
    if date_trunc('month', b.day) is distinct from date_trunc('month', p_day) then
        b.warned := 0;
    end if;
    b.day := p_day;
    select coalesce(sum(cost), 0), coalesce(sum(cost) filter (where byok_vendor = ''), 0),
            coalesce(sum(cost) filter (where day = p_day), 0), count(*)
        into b.month_spent, b.month_ours, b.day_spent, b.month_calls
        from calls
        where agent_id = b.agent_id and day >= date_trunc('month', p_day)::date
            and day < (date_trunc('month', p_day) + interval '1 month')::date;
    return b;
end $$;

create function budget_keep(b budgets) returns void language plpgsql as $$
begin
    update budgets set day = b.day, month_spent = b.month_spent, month_ours = b.month_ours, day_spent = b.day_spent,
        month_calls = b.month_calls, reserved = b.reserved, warned = b.warned
        where agent_id = b.agent_id;
end $$;

-- What the month's cap is held against.
create function budget_month(b budgets) returns bigint language sql immutable as $$
    select case when b.month_included then b.month_ours else b.month_spent end
$$;

create function usage_alert(b budgets, p_kind text, p_cap bigint, p_amount bigint, p_now timestamptz)
returns void language sql as $$
    insert into usage_alerts (agent_id, month, kind, spent, reserved, cap, amount, at)
        values (b.agent_id, date_trunc('month', b.day)::date, p_kind, budget_month(b), b.reserved, p_cap, p_amount, p_now)
        on conflict do nothing
$$;

-- Reserve: key, kill switch and caps are checked and the money held under the lock of the agent's budget row. Agents
-- are taken in the order of their ids, here and in every function below: so two batches cannot wait for each other.
-- Who calls these functions plans by index look-ups alone (store/usage.py sets it): a batch is small, and `holds` is mostly
-- rows that are gone.
-- p_calls is an array of objects; the answer's `place` counts from 1. p_now is null but in tests: the clock is read
-- after the lock is held, so that no process with an older idea of the day comes after a newer one.
create function usage_reserve(p_executor text, p_calls jsonb, p_now timestamptz default null)
returns table (place bigint, agent_id uuid, agent_name text, byok_vendor text, refusal text,
               cap bigint, spent bigint, reserved bigint)
language plpgsql as $$
#variable_conflict use_column
declare
    r record;
    b budgets;
    t turn_sums;
    v_now timestamptz;
    v_dirty boolean := false;
begin
    for r in
        select c.*, k.id as key_id, a.id as agent, a.name
        from rows from (jsonb_to_recordset(p_calls) as (
                call_id uuid, key text, amount bigint, surface text, alias text, vendor text, model text, pi bigint,
                po bigint, pc bigint, pw bigint, ph bigint, source text, turn text, conversation text)
            ) with ordinality as c (call_id, key, amount, surface, alias, vendor, model, pi, po, pc, pw, ph, source,
                turn, conversation, nr)
        left join relay_keys k on k.hash = decode(c.key, 'hex') and k.revoked_at is null
        left join agents a on a.id = k.agent_id and a.state not in ('destroying', 'destroyed')
        order by a.id, c.nr
    loop
        if b.agent_id is distinct from r.agent then
            if v_dirty then
                perform budget_keep(b);
                v_dirty := false;
            end if;
            select * into b from budgets where budgets.agent_id = r.agent for no key update;
            v_now := coalesce(p_now, clock_timestamp());
            if b.day is distinct from (v_now at time zone 'utc')::date then
                b := budget_on(b, (v_now at time zone 'utc')::date);
            end if;
        end if;
        place := r.nr;
        agent_id := r.agent;
        agent_name := r.name;
        byok_vendor := case when r.vendor = any (b.byok_vendors) then r.vendor
                            else coalesce(b.byok_vendors[1], '') end;
        spent := budget_month(b);
        reserved := b.reserved;
        cap := null;
        t := null;
        if r.turn <> '' then
            select * into t from turn_sums s where s.agent_id = r.agent and s.turn = r.turn;
        end if;
        -- `is not true`: whatever cannot be told is refused.
        refusal := case
            when b.agent_id is null or r.agent is null or r.amount is null then 'unknown-key'
            when b.killed is not false then 'killed'
            when r.turn <> '' and (coalesce(t.calls, 0) < b.turn_calls) is not true then 'turn-calls'
            when r.turn <> '' and (coalesce(t.spent + t.reserved, 0) + r.amount <= b.turn_cap) is not true
                then 'turn-money'
            when (b.day_spent + b.reserved + r.amount <= b.day_cap) is not true then 'day'
            when (b.month_included and byok_vendor <> '') is not true
                and (spent + b.reserved + r.amount <= b.month_cap) is not true then 'month'
        end;
        -- Asked again after an answer that was lost: the hold that is there is the answer.
        perform from holds h where h.call_id = r.call_id and h.agent_id = r.agent;
        if found then
            refusal := null;
            return next;
            continue;
        end if;
        if refusal is null then
            perform from calls c where c.call_id = r.call_id;
            if found then
                refusal := 'repeated';
            else
                insert into holds values (r.call_id, r.agent, r.key_id, p_executor, r.amount, r.surface, r.alias,
                    r.vendor, r.model, byok_vendor, r.pi, r.po, r.pc, r.pw, r.ph, r.source, r.turn, r.conversation,
                    v_now)
                    on conflict do nothing;
                if not found then
                    refusal := 'repeated';
                end if;
            end if;
        end if;
        if refusal is null then
            b.reserved := b.reserved + r.amount;
            v_dirty := true;
            if r.turn <> '' then
                insert into turn_sums as s (agent_id, turn, reserved, calls, at)
                    values (r.agent, r.turn, r.amount, 1, v_now)
                    on conflict on constraint turn_sums_pkey do update
                        set reserved = s.reserved + excluded.reserved, calls = s.calls + 1, at = excluded.at;
            end if;
        elsif refusal = 'month' then
            cap := b.month_cap;
            b.warned := 100;
            v_dirty := true;
            perform usage_alert(b, '100', cap, r.amount, v_now);
        elsif refusal in ('day', 'turn-money', 'turn-calls') then
            cap := case refusal when 'day' then b.day_cap when 'turn-money' then b.turn_cap else b.turn_calls end;
            spent := case refusal when 'day' then b.day_spent when 'turn-money' then coalesce(t.spent, 0)
                                  else coalesce(t.calls, 0) end;
            reserved := case refusal when 'day' then b.reserved when 'turn-money' then coalesce(t.reserved, 0)
                                     else 0 end;
            perform usage_alert(b, refusal, cap, r.amount, v_now);
        end if;
        return next;
    end loop;
    if v_dirty then
        perform budget_keep(b);
    end if;
end $$;

-- Settle: the hold goes, its call is written down, the sums move. A hold that is gone changes nothing. The outcome
-- 'swept' is paid as held: nobody knows what became of it. Returns how many were settled.
create function usage_settle(p_calls jsonb, p_now timestamptz default null) returns int
language plpgsql as $$
#variable_conflict use_column
declare
    r record;
    h holds;
    b budgets;
    v_now timestamptz;
    v_cost bigint;
    v_level int;
    v_done int := 0;
begin
    for r in
        select s.*, held.agent_id
        from jsonb_to_recordset(p_calls) as s (
            call_id uuid, input bigint, output bigint, cached bigint, written bigint, hour bigint, reasoning bigint,
            estimated boolean, latency bigint, outcome text, vendor text, model text, pi bigint, po bigint, pc bigint,
            pw bigint, ph bigint, source text)
        join holds held on held.call_id = s.call_id
        order by held.agent_id, s.call_id
    loop
        if b.agent_id is distinct from r.agent_id then
            if b.agent_id is not null then
                perform budget_keep(b);
            end if;
            select * into b from budgets where budgets.agent_id = r.agent_id for no key update;
            v_now := coalesce(p_now, clock_timestamp());
            if b.day is distinct from (v_now at time zone 'utc')::date then
                b := budget_on(b, (v_now at time zone 'utc')::date);
            end if;
        end if;
        delete from holds where call_id = r.call_id returning * into h;
        continue when not found;
        if r.pi is not null then
            h.price_input := r.pi;
            h.price_output := r.po;
            h.price_cached := r.pc;
            h.price_cache_written := r.pw;
            h.price_cache_written_1h := r.ph;
            h.price_source := r.source;
        end if;
        v_cost := case when r.outcome = 'swept' then h.amount else
            greatest(r.input - r.cached - r.written, 0) * h.price_input + r.output * h.price_output
            + r.cached * h.price_cached + greatest(r.written - r.hour, 0) * h.price_cache_written
            + r.hour * h.price_cache_written_1h end;
        insert into calls values (h.call_id, h.agent_id, h.key_id, h.executor, h.surface, h.alias,
            coalesce(nullif(r.vendor, ''), h.vendor), coalesce(nullif(r.model, ''), h.model), h.byok_vendor,
            r.input, r.output, r.cached, r.written, r.hour, r.reasoning, r.estimated, h.price_input, h.price_output,
            h.price_cached, h.price_cache_written, h.price_cache_written_1h, h.price_source, v_cost, h.amount, r.outcome,
            h.turn, h.conversation, r.latency, b.day, h.at, v_now);
        b.reserved := b.reserved - h.amount;
        b.month_spent := b.month_spent + v_cost;
        if h.byok_vendor = '' then
            b.month_ours := b.month_ours + v_cost;
        end if;
        b.day_spent := b.day_spent + v_cost;
        b.month_calls := b.month_calls + 1;
        if h.turn <> '' then
            update turn_sums set reserved = reserved - h.amount, spent = spent + v_cost, at = v_now
                where agent_id = h.agent_id and turn = h.turn;
        end if;
        -- The highest level only: who goes from nothing to all of it at once gets one mail, not three.
        v_level := case when b.month_cap = 9223372036854775807 or b.month_cap = 0 then 0
                        when budget_month(b) >= b.month_cap then 100
                        when budget_month(b)::numeric * 100 >= b.month_cap::numeric * 80 then 80
                        when budget_month(b)::numeric * 100 >= b.month_cap::numeric * 50 then 50
                        else 0 end;
        if v_level > b.warned then
            b.warned := v_level;
            perform usage_alert(b, v_level::text, b.month_cap, 0, v_now);
        end if;
        v_done := v_done + 1;
    end loop;
    if b.agent_id is not null then
        perform budget_keep(b);
    end if;
    return v_done;
end $$;

-- Release: the call was never made.
create function usage_release(p_call_ids uuid[]) returns int
language plpgsql as $$
declare
    r record;
    v_done int := 0;
begin
    perform from budgets b where b.agent_id in (select h.agent_id from holds h where h.call_id = any (p_call_ids))
        order by b.agent_id for no key update;
    for r in delete from holds where call_id = any (p_call_ids) returning agent_id, turn, amount loop
        update budgets set reserved = reserved - r.amount where agent_id = r.agent_id;
        update turn_sums set reserved = reserved - r.amount, calls = calls - 1
            where agent_id = r.agent_id and turn = r.turn and r.turn <> '';
        v_done := v_done + 1;
    end loop;
    return v_done;
end $$;

-- All that waits, in one commit: first what ended, then what wants to begin. Each part may be null. With more than one
-- part, all the agents are locked before the first, in the order of their ids: see above.
create function usage_commit(p_executor text, p_reserve jsonb, p_settle jsonb, p_release uuid[],
                             p_now timestamptz default null)
returns table (place bigint, agent_id uuid, agent_name text, byok_vendor text, refusal text,
               cap bigint, spent bigint, reserved bigint)
language plpgsql as $$
#variable_conflict use_column
begin
    if num_nonnulls(p_reserve, p_settle, p_release) > 1 then
        perform from budgets b where b.agent_id in (
            select k.agent_id from jsonb_array_elements(p_reserve) c join relay_keys k on k.hash = decode(c ->> 'key', 'hex')
            union all
            select h.agent_id from jsonb_array_elements(p_settle) s join holds h on h.call_id = (s ->> 'call_id')::uuid
            union all
            select h.agent_id from holds h where h.call_id = any (p_release))
            order by b.agent_id for no key update;
    end if;
    if p_settle is not null then
        perform usage_settle(p_settle, p_now);
    end if;
    if p_release is not null then
        perform usage_release(p_release);
    end if;
    if p_reserve is not null then
        return query select * from usage_reserve(p_executor, p_reserve, p_now);
    end if;
end $$;

-- Sweep: settle, as held, what a dead process left, and what is older than any call can be.
create function usage_sweep(p_stale_seconds double precision, p_call_seconds_max double precision, p_limit int,
                            p_now timestamptz default null) returns int
language sql set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off as $$
    select usage_settle(coalesce((
        select jsonb_agg(jsonb_build_object('call_id', d.call_id, 'input', 0, 'output', 0, 'cached', 0, 'written', 0,
            'hour', 0, 'reasoning', 0, 'estimated', true, 'latency', 0, 'outcome', 'swept'))
        from (select h.call_id from holds h left join executors e on e.id = h.executor
              where h.at < coalesce(p_now, now()) - make_interval(secs => p_call_seconds_max)
                 or (h.at < coalesce(p_now, now()) - make_interval(secs => p_stale_seconds)
                     and (e.id is null or e.heartbeat_at < now() - make_interval(secs => p_stale_seconds)))
              order by h.at limit p_limit) d), '[]'), p_now)
$$;
