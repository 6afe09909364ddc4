-- Mail to postmaster@, abuse@ and their like (RFC 2142): nobody's of the agents, the operator's.

create table operator_mails (
    id            uuid primary key default gen_random_uuid(),
    position      bigint generated always as identity,
    mailbox       text not null,                             -- postmaster, abuse, ...
    recipient     text not null,                             -- as the peer wrote it
    sender        text not null,                             -- the From's address, else the envelope's
    subject       text not null,
    message_id    text not null,
    client_ip     text not null,
    digest        bytea not null,                            -- SHA-256 of mailbox and mail: sent again it is the same
    size          bigint not null,
    raw           bytea not null,
    at            timestamptz not null default now()
);
create unique index operator_mails_digest on operator_mails (digest);
create index operator_mails_position on operator_mails (position);
create index operator_mails_sender on operator_mails (sender);
create index operator_mails_at on operator_mails (at);
alter table operator_mails alter column raw set storage external;  -- mail is packed rarely, and read once
