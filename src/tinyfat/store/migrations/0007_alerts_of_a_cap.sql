-- An owner is told once a month of each level of a cap: a cap that was raised has levels of its own, and is reached anew.
alter table usage_alerts drop constraint usage_alerts_agent_id_month_kind_key;
alter table usage_alerts add constraint usage_alerts_once unique (agent_id, month, kind, cap);
