-- How often each vendor's account may still be asked, by all processes together, and what it had none of.
-- Times are Unix seconds. `account` holds no secret: a vendor's name and a hash of the token.
create table request_budgets (
    account      text primary key,
    tokens       double precision not null,
    at           double precision not null,
    paused_until double precision not null default 0
);

create table shortages (
    account text not null,
    thing   text not null, -- a type in a location
    until   double precision not null,
    pause   double precision not null,
    probing boolean not null default false,
    primary key (account, thing)
);
