-- Since when an agent is in its state: a destroyed one's name is kept for its owner for a while from then, and whoever
-- looks for flows that a crash left unbegun lets those pass that begin right now.
alter table agents add column state_since timestamptz not null default now();
update agents set state_since = coalesce(
    (select max(ended_at) from agent_steps where agent_id = agents.id and flow = 'retire'), created_at
) where state = 'destroyed';
