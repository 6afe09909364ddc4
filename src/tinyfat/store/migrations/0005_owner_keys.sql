-- Whose key of the owner's pays hangs on the operator's table (table_vendor: whom it names first for this alias) and on
-- what the owner brought, never on the relay's memory. The relay says what it reckoned the amount by (owner_vendor; null:
-- no matter). Where that has changed, nothing is held and no cap is judged: by another vendor's prices a call could be
-- refused, and its owner be told of it, that is well within its caps. What else the function does: 0002_usage.sql.
create or replace function usage_reserve(p_executor text, p_calls jsonb, p_now timestamptz default null)
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
                po bigint, pc bigint, pw bigint, ph bigint, source text, turn text, conversation text,
                table_vendor text, owner_vendor text)
            ) with ordinality as c (call_id, key, amount, surface, alias, vendor, model, pi, po, pc, pw, ph, source,
                turn, conversation, table_vendor, owner_vendor, nr)
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
        byok_vendor := case when r.table_vendor = any (b.byok_vendors) then r.table_vendor
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
            when r.owner_vendor <> byok_vendor then 'other-key'
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
