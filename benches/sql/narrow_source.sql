create table source as select n as id, 'name of ' || n as name, n % 1000 as amount from generate_series(1, ROWS) n;
vacuum analyze source;
