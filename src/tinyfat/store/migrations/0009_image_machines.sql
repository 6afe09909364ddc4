-- What the providers listed last of the machines that images are made of: no agent's, no alarm, and not free.

create table image_machines (
    kind            text not null,                       -- of the machine, e.g. hetzner
    provider_id     text not null,
    name            text not null,                       -- the provider's
    image           text not null,                       -- what comes of it, or is tried on it
    since           timestamptz not null,                -- the provider made it
    month_price     bigint not null check (month_price >= 0),  -- nano-dollars
    primary key (kind, provider_id)
);
