-- What a machine that is gone has cost stays in its month.

create table ended_machines (
    id                  uuid not null,                       -- an agent's, made anew, has the same one
    agent_id            uuid,                                -- null: it waited in the warm pool
    monthly_nanodollars bigint not null check (monthly_nanodollars > 0),
    since               timestamptz not null,
    ended_at            timestamptz not null default now(),
    primary key (id, ended_at)
);
create index ended_machines_of_agent on ended_machines (agent_id, ended_at);

create function machine_ended() returns trigger language plpgsql as $$
begin
    insert into ended_machines (id, agent_id, monthly_nanodollars, since)
    values (old.id, old.agent_id, old.monthly_nanodollars, coalesce(old.ordered_at, old.created_at))
    on conflict do nothing;
    return null;
end $$;
create trigger machine_ended after delete on machines
    for each row when (old.monthly_nanodollars > 0) execute function machine_ended();
