-- Agents on servers of their own: machines that wait without an agent, addresses that outlive them, names in the DNS,
-- who may log in and who did, and what the provider bills that we do not know. docs/decisions/0007-servers.md.

alter table agents
    add column plan       text not null default '',     -- '': none was named
    add column location   text not null default '',     -- where its server is to be; '': the driver's choice
    add column image      text not null default '',     -- what its server is made from; '': the operator's setting
    add column size       text not null default '',     -- the provider's word; '': the driver's default
    add column address_id uuid,                          -- its own id, or that of the pool's machine it was given
    add column replacing  int not null default 1,        -- the newest number given to one of its machines
    add column moving_at  timestamptz;                   -- since then it is between two machines: its turns wait

alter table machines
    alter column agent_id drop not null,                 -- null: it waits in the warm pool
    add column runtime             text not null default '',
    add column generation          int not null default 1,  -- of the agent's machines: 1, and one more for each replacement
    add column current             boolean not null default true,  -- the one that answers; false: the other side of a move
    add column pool                text not null default ''  -- what it is or was there
        check (pool in ('', 'booting', 'ready', 'ending', 'claimed')),
    add column address_id          uuid,
    add column image               text not null default '',
    add column size                text not null default '',
    add column location            text not null default '',
    add column ipv4                text not null default '',
    add column ipv6                text not null default '',
    add column monthly_nanodollars bigint not null default 0 check (monthly_nanodollars >= 0),
    add column ordered_at          timestamptz,
    add column claimed_at          timestamptz,
    -- Enrolment: the token of the user-data opens once; then the machine's own key is its name to us.
    add column hostname            text not null default '',
    add column enrol_token_hash    bytea,
    add column enrol_until         timestamptz,
    add column key_hash            bytea unique,
    add column enrolled_at         timestamptz,
    add column identity_serial     int not null default 1,  -- one more whenever what the machine is to be has changed
    add column identity_fetched    int not null default 0,  -- the one that the machine fetched last
    add check (agent_id is not null or pool in ('booting', 'ready', 'ending'));
create unique index machines_current on machines (agent_id) where current and agent_id is not null;
create index machines_pool on machines (location, created_at) where agent_id is null;

-- Addresses that outlive machines. Written down before they are made, forgotten once they are seen to be gone.
create table addresses (
    id         uuid primary key,                         -- the agent's, or the machine's of the pool it came with
    agent_id   uuid references agents (id),              -- null: it waits in the warm pool
    kind       text not null,                            -- of the machines it is for
    passing    boolean not null default false,           -- of a replacement: it goes when the move is over
    ipv4       text not null default '',
    ipv6       text not null default '',
    location   text not null default '',
    created_at timestamptz not null default now()
);
create index addresses_agent on addresses (agent_id);

-- Every name we ever gave out and did not yet see gone.
create table dns_names (
    name       text primary key,                         -- fully qualified, lower case
    agent_id   uuid not null references agents (id),
    created_at timestamptz not null default now()
);

-- SSH public keys of an agent's owner.
create table agent_keys (
    agent_id    uuid not null references agents (id),
    fingerprint text not null,                           -- SHA256:..., as ssh-keygen -l prints it
    public_key  text not null,                           -- type and base64, nothing else
    name        text not null default '',                -- the key's comment
    added_at    timestamptz not null default now(),
    primary key (agent_id, fingerprint)
);

-- Who logged in as operator, when, for how long, why. One row a certificate; rows are never deleted.
create table ssh_sessions (
    serial      bigint generated always as identity primary key,  -- the certificate's
    agent_id    uuid not null references agents (id),
    machine_id  uuid,
    address     text not null,                           -- where it went
    who         text not null,
    why         text not null,
    command     text not null default '',                -- '': a shell
    fingerprint text not null,                           -- of the key that was certified
    started_at  timestamptz not null default now(),
    valid_until timestamptz not null,
    ended_at    timestamptz,                             -- as the client told us; null: it did not
    exit_code   int
);
create index ssh_sessions_agent on ssh_sessions (agent_id, serial);

-- An agent's state on its way from one machine to the next. The bytes are in a file of the home, while it lasts.
create table state_moves (
    id           uuid primary key,
    agent_id     uuid not null references agents (id),
    from_machine uuid not null,
    to_machine   uuid not null,
    phase        text not null default 'asked' check (phase in ('asked', 'kept', 'restored', 'failed')),
    sha256       text not null default '',
    bytes        bigint not null default 0,
    detail       text not null default '',
    asked_at     timestamptz not null default now(),
    kept_at      timestamptz,
    restored_at  timestamptz
);
create index state_moves_machines on state_moves (from_machine, to_machine);

-- What does not agree between the provider's list and ours. Open while it lasts; kept afterwards.
create table alarms (
    id       bigint generated always as identity primary key,
    kind     text not null,                              -- orphan, ghost, name-orphan, name-ghost ...
    subject  text not null,                              -- the provider's id, our machine's id, a name
    agent_id uuid references agents (id),
    detail   text not null,
    since    timestamptz not null default now(),
    seen_at  timestamptz not null default now(),
    ended_at timestamptz
);
create unique index alarms_open on alarms (kind, subject) where ended_at is null;
