//! Who calls, and what a request may therefore ask for.

use super::App;
use super::problem::Problem;
use crate::events::{Filter, MOST_ENTITY_TYPES};
use crate::identity::{Identity, Reach, Refusal};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The caller of a request. Whoever takes this as an argument is called by nobody else.
pub(super) struct Caller(pub(super) Identity);

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        Ok(Self(app.guard.identify(bearer(&parts.headers)?).await?))
    }
}

/// What stands behind `Bearer` in the header `authorization` (RFC 6750 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    let (scheme, rest) = text.and_then(|text| text.split_once(' ')).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::Invalid("the header must be `authorization: Bearer <token>`, once".to_owned()));
    }
    Ok(Some(rest.trim()))
}

/// What the caller may see of what was asked for. Naming a tenant narrows what a trusted caller gets; nobody else may
/// name another than his own.
pub(super) fn filter(
    caller: &Identity,
    tenant_id: Option<String>,
    entity_types: Option<&str>,
    entity_id: Option<String>,
) -> Result<Filter, Problem> {
    let given = [tenant_id.as_deref(), entity_types, entity_id.as_deref()];
    if given.into_iter().flatten().any(|text| text.contains('\0')) {
        return Err(Problem::bad_request("invalid_parameter", "no name has the character U+0000"));
    }
    let filter = Filter::new(reach(caller, tenant_id)?).of_types(entity_types).of_entity(entity_id);
    if filter.entity_types.len() > MOST_ENTITY_TYPES {
        let detail = format!("`entity_type` names {MOST_ENTITY_TYPES} types at most; leave it out to get all");
        return Err(Problem::bad_request("invalid_parameter", detail));
    }
    Ok(filter)
}

/// As for [`filter`].
pub(super) fn reach(caller: &Identity, tenant_id: Option<String>) -> Result<Reach, Problem> {
    match (&caller.reach, tenant_id) {
        (reach, None) => Ok(reach.clone()),
        (Reach::Everything, Some(tenant)) => Ok(Reach::Tenant(Some(tenant.into()))),
        (Reach::Tenant(Some(own)), Some(tenant)) if **own == *tenant => Ok(caller.reach.clone()),
        _ => Err(Problem::forbidden("`tenant_id` is not the token's; leave it out")),
    }
}

/// When the caller's token expires, for streams.
pub(super) fn until(caller: &Identity) -> Option<Instant> {
    let left = caller.expires?.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
    Some(Instant::now() + left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearers() {
        let check = |values: &[&str], expected: Result<Option<&str>, ()>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().expect("a header value"));
            }
            assert_eq!(bearer(&headers).map_err(|_| ()), expected, "{values:?}");
        };
        check(&[], Ok(None));
        check(&["Bearer a.b.c"], Ok(Some("a.b.c")));
        check(&["bearer  a.b.c"], Ok(Some("a.b.c")));
        check(&["Bearer a.b.c", "Bearer d.e.f"], Err(()));
        check(&["Basic YTpi"], Err(()));
        check(&["a.b.c"], Err(()));
        check(&[""], Err(()));
    }

    #[test]
    fn a_reader_names_so_many_types() {
        let check = |names: usize, expected: bool| {
            let list: Vec<String> = (0..2 * names).map(|n| format!("type{}", n / 2)).collect(); // each twice
            let filter = filter(&Identity::trusted(), None, Some(&list.join(",")), None);
            assert_eq!(filter.is_ok(), expected, "{names}");
        };
        check(0, true);
        check(MOST_ENTITY_TYPES, true);
        check(MOST_ENTITY_TYPES + 1, false);
    }

    #[test]
    fn nobody_names_anothers_tenant() {
        let check = |own: Reach, asked: Option<&str>, expected: Option<Reach>| {
            let mut caller = Identity::trusted();
            caller.reach = own;
            assert_eq!(reach(&caller, asked.map(str::to_owned)).ok(), expected, "{caller:?} {asked:?}");
        };
        let tenant = |name: &str| Reach::Tenant(Some(name.into()));
        check(Reach::Everything, None, Some(Reach::Everything));
        check(Reach::Everything, Some("a"), Some(tenant("a")));
        check(tenant("a"), None, Some(tenant("a")));
        check(tenant("a"), Some("a"), Some(tenant("a")));
        check(tenant("a"), Some("b"), None);
        check(tenant("a"), Some(""), None);
        check(Reach::Tenant(None), Some("a"), None);
        check(Reach::Tenant(None), Some(""), None);
        check(Reach::Tenant(None), None, Some(Reach::Tenant(None)));
    }
}
