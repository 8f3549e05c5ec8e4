//! The page itself: files that are part of the binary. They hold no secret and are given to anybody; what they show is not.
//!
//! The page may load nothing from elsewhere and run nothing that is not one of these files.

use super::guard::OFF;
use crate::http::App;
use crate::http::problem::Problem;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

/// `require-trusted-types-for`: no text becomes markup, whatever an event holds.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    // A new version shows at the next load.
    (header::CACHE_CONTROL, "no-cache"),
];

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const ICON: &str = "image/svg+xml";

macro_rules! file {
    ($name:literal) => {
        include_str!(concat!("../../console/assets/", $name))
    };
}

const PAGE: &str = file!("index.html");
const OFF_PAGE: &str = file!("off.html");

/// What the page loads, under `/console/`.
const FILES: [(&str, &str, &str); 14] = [
    ("console.css", STYLE, file!("console.css")),
    ("icon.svg", ICON, file!("icon.svg")),
    ("main.js", SCRIPT, file!("main.js")),
    ("api.js", SCRIPT, file!("api.js")),
    ("dom.js", SCRIPT, file!("dom.js")),
    ("format.js", SCRIPT, file!("format.js")),
    ("plot.js", SCRIPT, file!("plot.js")),
    ("signin.js", SCRIPT, file!("signin.js")),
    ("overview.js", SCRIPT, file!("overview.js")),
    ("entities.js", SCRIPT, file!("entities.js")),
    ("events.js", SCRIPT, file!("events.js")),
    ("timeline.js", SCRIPT, file!("timeline.js")),
    ("letters.js", SCRIPT, file!("letters.js")),
    ("problems.js", SCRIPT, file!("problems.js")),
];

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/console", get(page))
        // Relative links of the page need it without the slash.
        .route("/console/", get(async || Redirect::permanent("../console")))
        .route("/console/{file}", get(file))
}

/// The page, or how to switch it on.
async fn page(State(app): State<App>) -> Response {
    match app.console {
        Some(_) => (HEADERS, [(header::CONTENT_TYPE, HTML)], PAGE).into_response(),
        None => (StatusCode::NOT_FOUND, HEADERS, [(header::CONTENT_TYPE, HTML)], OFF_PAGE).into_response(),
    }
}

async fn file(State(app): State<App>, Path(name): Path<String>) -> Response {
    // The page that says how to switch it on has a style, too.
    if app.console.is_none() && name != "console.css" && name != "icon.svg" {
        return Problem::not_found_here(OFF).into_response();
    }
    match FILES.iter().find(|(known, ..)| *known == name) {
        Some((_, media_type, text)) => (HEADERS, [(header::CONTENT_TYPE, *media_type)], *text).into_response(),
        None => Problem::not_found().into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a policy forbids would only show in a browser.
    #[test]
    fn nothing_stands_inline_and_everything_that_is_named_is_there() {
        for page in [PAGE, OFF_PAGE] {
            for forbidden in ["<style", " style=", " onclick=", " onload=", "javascript:", "http://", "https://"] {
                assert!(!page.contains(forbidden), "{forbidden}");
            }
            assert_eq!(page.matches("<script").count(), page.matches("<script type=\"module\" src=\"console/").count());
        }
        for (name, media_type, text) in FILES {
            let named =
                if media_type == SCRIPT { text.split("from './").skip(1) } else { "".split("from './").skip(1) };
            for import in named.filter_map(|rest| rest.split('\'').next()) {
                assert!(FILES.iter().any(|(known, ..)| *known == import), "{name} imports {import}");
            }
            assert!(!text.contains("innerHTML") && !text.contains("eval("), "{name}");
        }
        for link in PAGE.split("\"console/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(FILES.iter().any(|(known, ..)| *known == link), "the page names {link}");
        }
    }
}
