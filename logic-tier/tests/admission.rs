//! Who may enter: open, and by token.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use logic_tier::admission::Admission;
use logic_tier::config::Config;
use logic_tier::metrics::Outcome;
use serde_json::{Value, json};
use settings::Source;
use wire::trunk::{AuthRequest, Dialect, Granted};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn admission(toml: &str) -> Admission {
    let config = Config::parse(&Source::new("test.toml", toml)).expect("a good config");
    Admission::new(&config.admission)
}

fn by_token() -> Admission {
    admission(&format!("[admission]\nmode = \"token\"\nsecret = \"{SECRET}\"\n"))
}

fn signed(claims: &Value, algorithm: Algorithm, secret: &str) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).expect("claims can be signed")
}

/// Long after any test runs.
const FUTURE: u64 = 32_503_680_000;

fn token(mut claims: Value) -> String {
    let object = claims.as_object_mut().expect("claims are an object");
    object.entry("exp").or_insert(json!(FUTURE));
    signed(&claims, Algorithm::HS256, SECRET)
}

fn asking(token: impl Into<String>) -> AuthRequest {
    AuthRequest { id: 1, mid: 7, room: "live://1".to_owned(), token: token.into(), ..AuthRequest::default() }
}

#[test]
fn open_admission_lets_everybody_in_as_they_ask() {
    let request = AuthRequest { key: "tv".to_owned(), accepts: vec![1000, 1001], ..asking("") };
    let granted =
        Granted { mid: 7, key: "tv".to_owned(), room: "live://1".to_owned(), accepts: vec![1000, 1001], rooms: None };
    assert_eq!(admission("").judge(&request), Ok(granted.clone()));
    let without_keys = admission("[admission]\nclient_keys = false");
    assert_eq!(without_keys.judge(&request), Ok(Granted { key: String::new(), ..granted }));
}

#[test]
fn a_good_token_says_who_it_is() {
    let nobody = AuthRequest { mid: 0, room: String::new(), ..asking("") };
    let cookie = |cookie: String| AuthRequest { cookie, ..asking("") };
    let good = token(json!({}));
    let rows = [
        ("no mid in the token", asking(good.clone()), 7),
        ("the mid that was asked for", asking(token(json!({"mid": 7}))), 7),
        ("who asks as nobody", AuthRequest { token: token(json!({"mid": 9})), ..nobody.clone() }, 9),
        ("a subject that is a number", AuthRequest { token: token(json!({"sub": "9"})), ..nobody.clone() }, 9),
        ("a number as subject", AuthRequest { token: token(json!({"sub": 9})), ..nobody.clone() }, 9),
        ("a subject that is a name", AuthRequest { token: token(json!({"sub": "ann"})), ..nobody.clone() }, 0),
        ("mid before subject", AuthRequest { token: token(json!({"sub": "9", "mid": 8})), ..nobody }, 8),
        ("a room", asking(token(json!({"room": "live://1"}))), 7),
        ("one of its rooms", asking(token(json!({"rooms": ["live://2", "live://1"]}))), 7),
        ("no room asked for", AuthRequest { room: String::new(), ..asking(token(json!({"rooms": []}))) }, 7),
        ("for an audience", asking(token(json!({"aud": "somebody"}))), 7),
        ("in a cookie", cookie(format!("a=b; token={good}; c=d")), 7),
        ("in a quoted cookie", cookie(format!("token=\"{good}\"")), 7),
        (
            "as the key of a Bilibili client",
            AuthRequest { dialect: Dialect::Bilibili.into(), ..asking(good.clone()) },
            7,
        ),
    ];
    let admission = by_token();
    for (what, request, mid) in rows {
        assert_eq!(admission.judge(&request).map(|granted| granted.mid), Ok(mid), "{what}");
    }
}

#[test]
fn a_bad_token_is_refused_with_the_reason() {
    let expired = token(json!({"exp": 1_000_000_000}));
    let other_room = token(json!({"rooms": ["live://2"]}));
    let unsigned = {
        let signed = token(json!({}));
        let mut parts = signed.split('.');
        let _header = parts.next();
        // {"alg":"none"}
        format!("eyJhbGciOiJub25lIn0.{}.", parts.next().expect("a token has claims"))
    };
    let exp = json!({"exp": FUTURE});
    let rows = [
        ("none", asking(""), Outcome::TokenMissing, "token is missing"),
        (
            "another cookie",
            AuthRequest { cookie: "a=b; xtoken=c".to_owned(), ..asking("") },
            Outcome::TokenMissing,
            "token is missing",
        ),
        ("expired", asking(expired), Outcome::TokenExpired, "token expired"),
        ("for ever", asking(signed(&json!({}), Algorithm::HS256, SECRET)), Outcome::TokenInvalid, "token has no exp"),
        ("not yet", asking(token(json!({"nbf": FUTURE}))), Outcome::TokenInvalid, "token is not valid yet"),
        (
            "another secret",
            asking(signed(&exp, Algorithm::HS256, "another")),
            Outcome::TokenInvalid,
            "token has a wrong signature",
        ),
        (
            "another algorithm",
            asking(signed(&exp, Algorithm::HS384, SECRET)),
            Outcome::TokenInvalid,
            "token is not signed with HS256",
        ),
        ("no signature", asking(unsigned), Outcome::TokenInvalid, "token cannot be read"),
        ("no token", asking("x"), Outcome::TokenInvalid, "token cannot be read"),
        ("a long one", asking("x".repeat(10_000)), Outcome::TokenInvalid, "token is too long"),
        ("mid is text", asking(token(json!({"mid": "7"}))), Outcome::TokenInvalid, "token cannot be read"),
        ("another mid", asking(token(json!({"mid": 9}))), Outcome::OtherMid, "the token is for another mid"),
        ("another room", asking(other_room), Outcome::OtherRoom, "the token does not allow this room"),
        ("no rooms", asking(token(json!({"rooms": []}))), Outcome::OtherRoom, "the token does not allow this room"),
        (
            "a bad room",
            AuthRequest { room: "x".to_owned(), ..asking(token(json!({}))) },
            Outcome::BadRoom,
            "a room is named type://id, such as live://1000",
        ),
        (
            "a long key",
            AuthRequest { key: "k".repeat(129), ..asking(token(json!({}))) },
            Outcome::BadRequest,
            "the key or the list of operations is too long",
        ),
    ];
    let admission = by_token();
    for (what, request, outcome, reason) in rows {
        let refusal = admission.judge(&request).expect_err(what);
        assert_eq!((refusal.outcome, &*refusal.reason), (outcome, reason), "{what}");
        assert_eq!(refusal.into_denied().code, -101);
    }
}
