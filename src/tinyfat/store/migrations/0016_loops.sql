-- Mail that was held for having the rhythm of a loop (domain/mail/rhythm): found without reading all held mail.

create index messages_loops on messages (agent_id, sender, at) where state = 'held' and reason like 'a loop:%';
