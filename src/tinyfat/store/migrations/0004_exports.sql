-- An agent's state may go to its operator, as a file, instead of another machine.

alter table state_moves
    alter column to_machine drop not null,               -- null: an export
    drop constraint state_moves_phase_check,
    add constraint state_moves_phase_check check (phase in ('asked', 'kept', 'restored', 'fetched', 'failed'));
