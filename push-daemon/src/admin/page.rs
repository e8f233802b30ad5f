//! The live page: plain files, embedded in the binary, so that nothing has to be installed beside it.

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../page/", $name)))),*]
    };
}

/// Every file that the page is made of.
const FILES: &[(&str, &str)] = files![
    "index.html",
    "style.css",
    "stage.css",
    "room.css",
    "gauges.css",
    "main.js",
    "gauges.js",
    "lanes.js",
    "log.js",
    "message.js",
    "outbox.js",
    "packet.js",
    "publish.js",
    "room.js",
    "settings.js",
    "stage.js",
    "stats.js",
];

/// The page runs its own scripts only and speaks to this host only, whatever a message may hold.
const POLICY: &str =
    "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; style-src 'self' 'unsafe-inline'";

const HEADERS: [(HeaderName, &str); 3] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::CACHE_CONTROL, "no-cache"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// The file `name`, or 404.
pub(super) fn file(name: &str) -> Response {
    let Some((_, text)) = FILES.iter().find(|(file, _)| *file == name) else {
        return (StatusCode::NOT_FOUND, "no such page\n").into_response();
    };
    let kind = match name.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        _ => "text/javascript; charset=utf-8",
    };
    (HEADERS, [(header::CONTENT_TYPE, kind)], *text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is named by another but not embedded would be a page that does not start.
    #[test]
    fn every_file_that_is_named_is_embedded() {
        let named = FILES.iter().flat_map(|(_, text)| {
            text.split(['"', '\''])
                .map(|quoted| quoted.trim_start_matches("./"))
                .filter(|quoted| !quoted.contains('/') && (quoted.ends_with(".js") || quoted.ends_with(".css")))
        });
        let mut count = 0;
        for name in named {
            count += 1;
            assert!(FILES.iter().any(|(file, _)| *file == name), "{name} is named but not embedded");
        }
        assert!(count >= FILES.len() - 1, "only {count} names were found: the scan is broken");
    }
}
