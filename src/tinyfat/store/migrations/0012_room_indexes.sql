-- Nothing looks for turns by their end, and `state_since` says when an agent was destroyed.

drop index turns_ended_age;
alter table agents drop column ended_at;
