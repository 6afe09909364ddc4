-- A call may be content with less than the most it can cost: near a cap the bound of its answer is lowered to what is
-- left, instead of a refusal (`least`). And a refusal that is asked about again, with another amount, is no news to the
-- owner (`quiet`). What else the functions do: 0002_usage.sql, 0005_owner_keys.sql. They answer with one column more, so
-- they are made anew.
drop function usage_commit(text, jsonb, jsonb, uuid[], timestamptz);
drop function usage_reserve(text, jsonb, timestamptz);

create function usage_reserve(p_executor text, p_calls jsonb, p_now timestamptz default null)
returns table (place bigint, agent_id uuid, agent_name text, byok_vendor text, refusal text,
               cap bigint, spent bigint, reserved bigint, granted bigint)
language plpgsql as $$
#variable_conflict use_column
declare
    r record;
    b budgets;
    t turn_sums;
    v_now timestamptz;
    v_dirty boolean := false;
    v_left bigint;
    v_amount bigint;
    v_held bigint;
begin
    for r in
        select c.*, k.id as key_id, a.id as agent, a.name
        from rows from (jsonb_to_recordset(p_calls) as (
                call_id uuid, key text, amount bigint, surface text, alias text, vendor text, model text, pi bigint,
                po bigint, pc bigint, pw bigint, ph bigint, source text, turn text, conversation text,
                table_vendor text, owner_vendor text, least bigint, quiet boolean)
            ) with ordinality as c (call_id, key, amount, surface, alias, vendor, model, pi, po, pc, pw, ph, source,
                turn, conversation, table_vendor, owner_vendor, least, quiet, nr)
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
        -- What every cap leaves; `least` knows no nulls. Where it is enough, it is held in place of all that was asked for.
        v_left := least(
            case when r.turn <> '' then b.turn_cap - coalesce(t.spent + t.reserved, 0) end,
            b.day_cap - b.day_spent - b.reserved,
            case when (b.month_included and byok_vendor <> '') is not true then b.month_cap - spent - b.reserved end);
        v_amount := case when v_left < r.amount and v_left >= coalesce(r.least, r.amount) then v_left else r.amount end;
        granted := v_amount;
        -- `is not true`: whatever cannot be told is refused.
        refusal := case
            when b.agent_id is null or r.agent is null or r.amount is null then 'unknown-key'
            when b.killed is not false then 'killed'
            when r.owner_vendor <> byok_vendor then 'other-key'
            when r.turn <> '' and (coalesce(t.calls, 0) < b.turn_calls) is not true then 'turn-calls'
            when r.turn <> '' and (coalesce(t.spent + t.reserved, 0) + v_amount <= b.turn_cap) is not true
                then 'turn-money'
            when (b.day_spent + b.reserved + v_amount <= b.day_cap) is not true then 'day'
            when (b.month_included and byok_vendor <> '') is not true
                and (spent + b.reserved + v_amount <= b.month_cap) is not true then 'month'
        end;
        -- Asked again after an answer that was lost: the hold that is there is the answer.
        select h.amount into v_held from holds h where h.call_id = r.call_id and h.agent_id = r.agent;
        if found then
            refusal := null;
            granted := v_held;
            return next;
            continue;
        end if;
        if refusal is null then
            perform from calls c where c.call_id = r.call_id;
            if found then
                refusal := 'repeated';
            else
                insert into holds values (r.call_id, r.agent, r.key_id, p_executor, v_amount, r.surface, r.alias,
                    r.vendor, r.model, byok_vendor, r.pi, r.po, r.pc, r.pw, r.ph, r.source, r.turn, r.conversation,
                    v_now)
                    on conflict do nothing;
                if not found then
                    refusal := 'repeated';
                end if;
            end if;
        end if;
        if refusal is null then
            b.reserved := b.reserved + v_amount;
            v_dirty := true;
            if r.turn <> '' then
                insert into turn_sums as s (agent_id, turn, reserved, calls, at)
                    values (r.agent, r.turn, v_amount, 1, v_now)
                    on conflict on constraint turn_sums_pkey do update
                        set reserved = s.reserved + excluded.reserved, calls = s.calls + 1, at = excluded.at;
            end if;
        elsif refusal = 'month' then
            cap := b.month_cap;
            if r.quiet is not true then
                b.warned := 100;
                v_dirty := true;
                perform usage_alert(b, '100', cap, r.amount, v_now);
            end if;
        elsif refusal in ('day', 'turn-money', 'turn-calls') then
            cap := case refusal when 'day' then b.day_cap when 'turn-money' then b.turn_cap else b.turn_calls end;
            spent := case refusal when 'day' then b.day_spent when 'turn-money' then coalesce(t.spent, 0)
                                  else coalesce(t.calls, 0) end;
            reserved := case refusal when 'day' then b.reserved when 'turn-money' then coalesce(t.reserved, 0)
                                     else 0 end;
            if r.quiet is not true then
                perform usage_alert(b, refusal, cap, r.amount, v_now);
            end if;
        end if;
        return next;
    end loop;
    if v_dirty then
        perform budget_keep(b);
    end if;
end $$;

create function usage_commit(p_executor text, p_reserve jsonb, p_settle jsonb, p_release uuid[],
                             p_now timestamptz default null)
returns table (place bigint, agent_id uuid, agent_name text, byok_vendor text, refusal text,
               cap bigint, spent bigint, reserved bigint, granted bigint)
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
