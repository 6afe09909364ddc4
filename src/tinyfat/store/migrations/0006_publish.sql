-- What an agent shows the world, and what became of an identity on its machine. docs/decisions/0009-sites.md.

alter table agents
    add column published boolean not null default false; -- its public folder is served at https://NAME.DOMAIN

alter table machines
    add column identity_in_force  int not null default 0,    -- the serial of the last identity it has wholly become
    add column identity_complaint text not null default '';  -- why it could not become the newest it tried
