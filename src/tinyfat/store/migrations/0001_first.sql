-- Agents, their machines, the mail ledger, the turns. docs/architecture.md tells the story in words.

create table agents (
    id           uuid primary key default gen_random_uuid(),
    name         text not null,
    owner        text not null,
    runtime      text not null,
    machine_kind text not null,
    state        text not null,
    reason       text not null default '',
    created_at   timestamptz not null default now()
);
-- A destroyed agent's ledger stays; its name is free again.
create unique index agents_name on agents (name) where state <> 'destroyed';

-- Who may write to an agent besides its owner: an address, or @domain.
create table agent_senders (
    agent_id uuid not null references agents (id),
    pattern  text not null,
    added_at timestamptz not null default now(),
    primary key (agent_id, pattern)
);

-- How far a flow has come, for people to watch.
create table agent_steps (
    agent_id   uuid not null references agents (id),
    flow       text not null,
    name       text not null,
    started_at timestamptz not null default now(),
    ended_at   timestamptz,
    detail     text not null default '',
    primary key (agent_id, flow, name)
);

create table machines (
    id           uuid primary key,
    agent_id     uuid not null references agents (id),
    kind         text not null,
    host         text not null,                          -- the executor that keeps it running
    token_hash   bytea not null unique,
    wanted       boolean not null default true,
    link_state   text not null default 'unseen',
    link_detail  text not null default '',
    version      text not null default '',
    memory_bytes bigint not null default 0,
    restarts     int not null default 0,
    seen_at      timestamptz,
    created_at   timestamptz not null default now()
);
create index machines_agent on machines (agent_id);

-- A conversation: one session of the runtime.
create table threads (
    id         uuid primary key default gen_random_uuid(),
    agent_id   uuid not null references agents (id),
    tag        text,
    subject    text not null,
    created_at timestamptz not null default now()
);
create unique index threads_tag on threads (agent_id, tag) where tag is not null;

-- Every Message-ID that was seen in a conversation, in whatever header.
create table thread_refs (
    agent_id   uuid not null references agents (id),
    message_id text not null,
    thread_id  uuid not null references threads (id),
    primary key (agent_id, message_id)
);

create table messages (
    id              uuid primary key default gen_random_uuid(),
    agent_id        uuid not null references agents (id),
    thread_id       uuid not null references threads (id),
    direction       text not null check (direction in ('in', 'out')),
    message_id      text not null,
    in_reply_to     text not null default '',
    sender          text not null,
    recipient       text not null,
    subject         text not null default '',
    state           text not null,
    reason          text not null default '',
    -- Proved and allowed, for mail that came in: a stranger's copy of a Message-ID must not shadow the owner's mail.
    trusted         boolean not null default true,
    authentication  text not null default '',
    envelope_from   text not null default '',
    question        text not null default '',
    turn_id         uuid,
    bounce_of       uuid references messages (id),
    size            int not null,
    at              timestamptz not null default now(),
    position        bigint generated always as identity,
    -- Of mail that goes out:
    attempts        int not null default 0,
    next_attempt_at timestamptz,
    leased_by       text,
    leased_until    timestamptz,
    delivered_at    timestamptz,
    response        text not null default ''
);
-- The same mail, delivered twice, is one mail.
create unique index messages_once on messages (agent_id, direction, message_id, trusted);
create index messages_list on messages (agent_id, position);
create index messages_due on messages (next_attempt_at) where direction = 'out' and state in ('queued', 'deferred');
create index messages_rate on messages (agent_id, sender, at) where direction = 'in' and turn_id is not null;
create index messages_thread on messages (thread_id, at);
create index messages_turn on messages (turn_id);

create table message_bodies (
    message_row uuid primary key references messages (id),
    raw         bytea not null
);
alter table message_bodies alter column raw set storage external;  -- mail hardly compresses: base64, MIME

create table turns (
    id              uuid primary key default gen_random_uuid(),
    agent_id        uuid not null references agents (id),
    thread_id       uuid references threads (id),       -- null: a probe
    message_row     uuid references messages (id),      -- null: a probe
    state           text not null default 'waiting',
    session         text not null,
    question        text not null,
    attempt         int not null default 1,             -- of the flow that carries it
    position        bigint generated always as identity,
    created_at      timestamptz not null default now(),
    offered_at      timestamptz,
    deadline_at     timestamptz,
    box_received_at timestamptz,
    outcome         text,
    answer          text not null default '',
    failure         text not null default '',
    detail          text not null default '',
    asked_at        double precision,                   -- Unix seconds by the box's clock
    answered_at     double precision,
    usage           jsonb not null default '{}',
    result_at       timestamptz,                         -- by our clock: the reply's Date
    ended_at        timestamptz
);
create unique index turns_message on turns (message_row);
create index turns_open on turns (thread_id, position) where state in ('waiting', 'running');
create index turns_agent_open on turns (agent_id) where state in ('waiting', 'running');

create table turn_attachments (
    turn_id    uuid not null references turns (id),
    place      int not null,
    filename   text not null,
    media_type text not null,
    content    bytea not null,
    primary key (turn_id, place)
);

create table logs (
    id       bigint generated always as identity primary key,
    agent_id uuid not null references agents (id),
    at       timestamptz not null,
    source   text not null,
    line     text not null
);
create index logs_agent on logs (agent_id, id);

-- The control plane's processes: who is alive decides whose flows are taken over.
create table executors (
    id           text primary key,
    started_at   timestamptz not null default now(),
    heartbeat_at timestamptz not null default now()
);
