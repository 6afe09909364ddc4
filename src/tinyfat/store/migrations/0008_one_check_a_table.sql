-- One check a table of the ledger, not one a column: Postgres reads and prepares each anew in every statement that
-- writes, and eight of them cost as much as the row.

alter table budgets
    drop constraint budgets_month_cap_check,
    drop constraint budgets_day_cap_check,
    drop constraint budgets_turn_cap_check,
    drop constraint budgets_turn_calls_check,
    drop constraint budgets_month_spent_check,
    drop constraint budgets_month_ours_check,
    drop constraint budgets_day_spent_check,
    drop constraint budgets_month_calls_check,
    drop constraint budgets_reserved_check,
    add constraint budgets_not_negative check (
        least(month_cap, day_cap, turn_cap, turn_calls, month_spent, month_ours, day_spent, month_calls, reserved) >= 0);

alter table calls
    drop constraint calls_input_check,
    drop constraint calls_output_check,
    drop constraint calls_cached_check,
    drop constraint calls_cache_written_check,
    drop constraint calls_cache_written_1h_check,
    drop constraint calls_reasoning_check,
    drop constraint calls_cost_check,
    add constraint calls_not_negative check (
        least(input, output, cached, cache_written, cache_written_1h, reasoning, cost) >= 0);
