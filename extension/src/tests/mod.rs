//! Tests inside a backend.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    #[pg_test]
    fn the_extension_loads() {
        assert_eq!(Spi::get_one::<i64>("select epoch from headwater.meta"), Ok(Some(1)));
    }
}
