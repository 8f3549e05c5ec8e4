-- A key, a text, a number.
create table narrow (id int primary key, name text, amount int);
