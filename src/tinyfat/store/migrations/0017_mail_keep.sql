-- Mails of one moment are kept by one statement: `store/accepting.py` gives it everything that is known and judged.

-- `batch`: an object a mail and agent, in their order; `raws`: the bodies, `raw` of an object being the place in it. A
-- row an object, in the same order: the copy that was there already; the state; whether the conversation has a turn that
-- has not ended.
--
-- The agents' locks are taken in the order of their ids, or two batches could each wait for the other. Then everything a
-- mail leaves behind at once: in its conversation, or in one it begins. Only what the owner's side wrote may name a
-- conversation: a stranger must not steer who ends up in which. Nor may a stranger's copy of a Message-ID stand in the
-- way of the owner's mail; only one that was released, of the same sender, is the same mail. A copy says the same:
-- another mail under the Message-ID of one that has its turn is held, for a person to look at: it may be the same words
-- with a gateway's footer. The question of a mail that has its turn is the turn's. One mail for several agents has one
-- body (`body_id`). The last lines look at things as they were.
create function mail_keep(batch jsonb, raws bytea[])
returns table (kept_copy uuid, kept_state text, kept_open boolean)
language plpgsql
-- Planned once a session. A plan made while the tables are empty would read all of them later.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    one record;
begin
    perform pg_advisory_xact_lock(hashtextextended(agent, 0))
    from (select distinct value ->> 'agent' collate "C" as agent from jsonb_array_elements(batch) order by 1) agents;
    for one in
        select * from jsonb_to_recordset(batch) as given (
            agent uuid, "row" uuid, turn uuid, new_thread uuid, body uuid, raw int, bounced uuid[], bounce_reason text,
            ids text[], tag text, session text, message_id text, in_reply_to text, sender text, recipient text,
            subject text, state text, reason text, another text, trusted boolean, authentication text,
            envelope_from text, question text, bounce_of uuid, size int, content text
        )
    loop
        if one.bounced <> '{}' then
            update messages set state = 'bounced', reason = one.bounce_reason where id = any(one.bounced);
        end if;
        return query
        with found as (
            select coalesce(
                (select thread_id from thread_refs where agent_id = one.agent and message_id = any(one.ids)
                 order by array_position(one.ids, message_id) limit 1),
                (select id from threads where agent_id = one.agent and tag = nullif(one.tag, ''))
            ) as thread
        ), copy as (
            select id, state from messages where agent_id = one.agent and direction = 'in'
                and message_id = one.message_id
                and (trusted = one.trusted or (turn_id is not null and sender = one.sender))
                and content in ('', one.content)
            order by trusted = one.trusted desc limit 1
        ), judged as (
            select one.turn is not null and exists (
                select from messages where agent_id = one.agent and direction = 'in' and message_id = one.message_id
                    and trusted and turn_id is not null
            ) as another
        ), begun as (
            insert into threads (id, agent_id, tag, subject)
            select one.new_thread, one.agent, nullif(one.tag, ''), one.subject
            from found where thread is null and not exists (select from copy)
        ), kept as (
            insert into messages (id, agent_id, thread_id, direction, message_id, in_reply_to, sender, recipient,
                subject, state, reason, trusted, authentication, envelope_from, question, bounce_of, size, turn_id,
                body_id, content)
            select one."row", one.agent, coalesce(thread, one.new_thread), 'in', one.message_id, one.in_reply_to,
                one.sender, one.recipient, one.subject, case when another then 'held' else one.state end,
                case when another then one.another else one.reason end, one.trusted, one.authentication,
                one.envelope_from, case when another or one.turn is null then one.question else '' end,
                one.bounce_of, one.size, case when another then null else one.turn end, one.body, one.content
            from found, judged where not exists (select from copy)
            returning thread_id, turn_id, state
        ), body as (
            insert into message_bodies (message_row, raw)
            select coalesce(one.body, one."row"), raws[one.raw] from kept on conflict do nothing
        ), refs as (
            insert into thread_refs (agent_id, message_id, thread_id)
            select one.agent, unnest(one.ids), thread_id from kept where one.trusted on conflict do nothing
        ), turn as (
            insert into turns (id, agent_id, thread_id, message_row, session, question)
            select turn_id, one.agent, thread_id, one."row", one.session || thread_id, one.question
            from kept where turn_id is not null
        )
        select (select id from copy), coalesce((select state from copy), (select state from kept)),
            exists (select from turns where thread_id = found.thread and state in ('waiting', 'running'))
        from found;
    end loop;
end
$$;
