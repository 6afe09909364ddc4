-- Two mails may have one Message-ID and say different things: each is kept. docs/architecture.md, "A mail's way".

set local statement_timeout = 0;                         -- the index of a large ledger takes its time
set local lock_timeout = 0;

alter table messages
    add column content text not null default '';         -- a digest of what an incoming mail says; '': before this
create unique index messages_once_each on messages (agent_id, direction, message_id, trusted, content);
drop index messages_once;
