-- A commit that only holds money for calls does not wait for the disk: it is on disk before any commit behind it, and so
-- before its call is settled (one write-ahead log). Why: docs/decisions/0013. What else the function does: 0002_usage.sql,
-- 0014_least.sql. An answer with the place 0, before the others, says that not all was settled: some holds were not there.
create or replace function usage_commit(p_executor text, p_reserve jsonb, p_settle jsonb, p_release uuid[],
                             p_now timestamptz default null)
returns table (place bigint, agent_id uuid, agent_name text, byok_vendor text, refusal text,
               cap bigint, spent bigint, reserved bigint, granted bigint)
language plpgsql as $$
#variable_conflict use_column
declare
    v_settled int;
begin
    if p_settle is null and p_release is null then
        perform set_config('synchronous_commit', 'off', true);
    end if;
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
        v_settled := usage_settle(p_settle, p_now);
        if v_settled < jsonb_array_length(p_settle) then
            place := 0;
            return next;
        end if;
    end if;
    if p_release is not null then
        perform usage_release(p_release);
    end if;
    if p_reserve is not null then
        return query select * from usage_reserve(p_executor, p_reserve, p_now);
    end if;
end $$;

-- Settle what may have been held in a commit that a dying database forgot: where neither the hold nor its call is there,
-- the hold is made again, and then all is settled as ever. p_holds: of each what it was held for, and who was to pay.
-- A key that was revoked meanwhile still pays for the call that it made.
create function usage_settle_lost(p_executor text, p_holds jsonb, p_settle jsonb, p_now timestamptz default null)
returns int language plpgsql as $$
declare
    r record;
    v_now timestamptz := coalesce(p_now, clock_timestamp());
begin
    perform from budgets b where b.agent_id in (select (c ->> 'agent')::uuid from jsonb_array_elements(p_holds) c)
        order by b.agent_id for no key update;
    for r in
        select c.*, k.id as key_id
        from jsonb_to_recordset(p_holds) as c (
            call_id uuid, key text, amount bigint, surface text, alias text, vendor text, model text, pi bigint,
            po bigint, pc bigint, pw bigint, ph bigint, source text, turn text, conversation text, agent uuid,
            byok_vendor text)
        join relay_keys k on k.hash = decode(c.key, 'hex') and k.agent_id = c.agent
        where not exists (select from calls done where done.call_id = c.call_id)
    loop
        insert into holds values (r.call_id, r.agent, r.key_id, p_executor, r.amount, r.surface, r.alias, r.vendor,
            r.model, r.byok_vendor, r.pi, r.po, r.pc, r.pw, r.ph, r.source, r.turn, r.conversation,
            v_now)
            on conflict do nothing;
        continue when not found;
        update budgets b set reserved = b.reserved + r.amount where b.agent_id = r.agent;
        if r.turn <> '' then
            insert into turn_sums as s (agent_id, turn, reserved, calls, at)
                values (r.agent, r.turn, r.amount, 1, v_now)
                on conflict on constraint turn_sums_pkey do update
                    set reserved = s.reserved + excluded.reserved, calls = s.calls + 1;
        end if;
    end loop;
    return usage_settle(p_settle, p_now);
end $$;
