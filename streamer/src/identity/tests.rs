//! Every way that we know of to get in without the right token.

use super::*;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::KeyPair;
use std::time::Duration;

const SECRET: &str = "a secret of at least thirty-two bytes";
const ADMIN: &str = "the administrators' own";

struct Issuer {
    algorithm: Algorithm,
    key: EncodingKey,
    public: String,
}

impl Issuer {
    fn new(algorithm: Algorithm) -> Self {
        let kind = match algorithm {
            Algorithm::RS256 => &rcgen::PKCS_RSA_SHA256,
            Algorithm::ES256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            _ => &rcgen::PKCS_ED25519,
        };
        let pair = KeyPair::generate_for(kind).expect("a key");
        let pem = pair.serialize_pem();
        let key = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
            _ => EncodingKey::from_ed_pem(pem.as_bytes()),
        };
        Self { algorithm, key: key.expect("a key"), public: pair.public_key_pem() }
    }

    fn sign(&self, claims: &Value) -> String {
        encode(&Header::new(self.algorithm), claims, &self.key).expect("a token")
    }
}

fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("before the end of time") + seconds
}

fn claims() -> Value {
    json!({"sub": "ann", "tenant_id": "cafe", "aud": "headwater", "exp": in_seconds(60)})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

fn hs256(claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token")
}

fn guard(keys: Keys, jwks: Option<Jwks>) -> Guard {
    let tokens = Tokens::new(keys, jwks, vec!["headwater".to_owned(), "other".to_owned()], None);
    Guard::Closed { admin: Some(Secret::new(ADMIN)), tokens: Some(Box::new(tokens)) }
}

#[tokio::test]
async fn tokens_of_every_algorithm_say_who_calls() {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let issuer = Issuer::new(algorithm);
        let guard = guard(Keys::of_public_key(&issuer.public).expect("a key"), None);
        let identity = guard.identify(Some(&issuer.sign(&claims()))).await.expect("let in");
        assert_eq!(identity.reach, Reach::Tenant(Some("cafe".into())), "{algorithm:?}");
        assert_eq!(identity.user.as_deref(), Some("ann"));
        let left = identity.expires.expect("a time").duration_since(SystemTime::now()).expect("later");
        assert!(left > Duration::from_secs(58) && left <= Duration::from_mins(1) + LEEWAY, "{left:?}");
        let other = Issuer::new(algorithm);
        assert!(matches!(guard.identify(Some(&other.sign(&claims()))).await, Err(Refusal::Invalid(_))));
    }
}

#[tokio::test]
async fn claims_are_judged() {
    let guard = guard(Keys::of_secret(SECRET), None);
    let check = async |claims: Value, expected: Result<(Option<&str>, Option<&str>), &str>| {
        let judged = guard.identify(Some(&hs256(&claims))).await;
        match (judged, expected) {
            (Ok(identity), Ok((tenant, user))) => {
                assert_eq!(identity.reach, Reach::Tenant(tenant.map(Into::into)), "{claims}");
                assert_eq!(identity.user.as_deref(), user, "{claims}");
            }
            (Err(refusal), Err(part)) => assert!(refusal.to_string().contains(part), "{claims}: {refusal}"),
            (judged, expected) => panic!("{claims}: {judged:?}, not {expected:?}"),
        }
    };
    check(claims(), Ok((Some("cafe"), Some("ann")))).await;
    check(with("aud", json!(["x", "other"])), Ok((Some("cafe"), Some("ann")))).await;
    check(without("sub"), Ok((Some("cafe"), None))).await;
    check(without("tenant_id"), Ok((None, Some("ann")))).await;
    check(with("tenant_id", json!(null)), Ok((None, Some("ann")))).await;
    check(with("tenant_id", json!("")), Ok((Some(""), Some("ann")))).await;
    check(with("exp", json!(in_seconds(-10))), Ok((Some("cafe"), Some("ann")))).await;
    check(with("exp", json!(9_000_000_000_u64)), Ok((Some("cafe"), Some("ann")))).await;
    for tenant in [json!(7), json!(["cafe"]), json!(true), json!({}), json!("a\0b")] {
        check(with("tenant_id", tenant), Err("tenant_id")).await;
    }
    check(with("sub", json!(7)), Err("sub")).await;
    check(with("role", json!(["postgres"])), Err("role")).await;
    check(with("exp", json!(in_seconds(-40))), Err("expired")).await;
    check(with("exp", json!("soon")), Err("exp")).await;
    check(with("exp", json!(-1)), Err("")).await;
    check(without("exp"), Err("exp")).await;
    check(with("nbf", json!(in_seconds(300))), Err("nbf")).await;
    check(with("aud", json!("elsewhere")), Err("aud")).await;
    check(with("aud", json!([])), Err("aud")).await;
    check(without("aud"), Err("aud")).await;
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let rsa = Issuer::new(Algorithm::RS256);
    let guard = guard(Keys::of_public_key(&rsa.public).expect("a key").and(Keys::of_secret(SECRET)), None);
    let check = async |name: &str, token: Option<&str>| {
        assert!(guard.identify(token).await.is_err(), "{name}: {token:?}");
    };
    check("nothing", None).await;
    for text in ["", ".", "..", "a.b.c", "nonsense", SECRET, "e30.e30.", "e30.e30.e30"] {
        check("no token", Some(text)).await;
    }
    let good = hs256(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    check("no signature", Some(&format!("{}.{}.", parts[0], parts[1]))).await;
    check("no dot", Some(&format!("{}.{}", parts[0], parts[1]))).await;
    check("another part", Some(&format!("{good}.x"))).await;
    let other = hs256(&with("tenant_id", json!("bar")));
    let payload = other.split('.').nth(1).expect("a payload");
    check("another payload", Some(&format!("{}.{payload}.{}", parts[0], parts[2]))).await;
    // {"alg":"none","typ":"JWT"} and some spellings.
    for header in ["eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0", "eyJhbGciOiJOb25lIn0", "eyJhbGciOiIifQ", "e30"] {
        check("alg none", Some(&format!("{header}.{}.", parts[1]))).await;
        check("alg none", Some(&format!("{header}.{}.{}", parts[1], parts[2]))).await;
    }
    // The public key is public: used as the secret of an HMAC it must not pass.
    let swapped = encode(&Header::new(Algorithm::HS256), &claims(), &EncodingKey::from_secret(rsa.public.as_bytes()));
    check("algorithm swapped", Some(&swapped.expect("a token"))).await;
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["exp".to_owned()]);
    let critical = encode(&header, &claims(), &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token");
    check("critical header", Some(&critical)).await;
    let long = encode(&Header::new(Algorithm::HS512), &claims(), &EncodingKey::from_secret(SECRET.as_bytes()));
    check("an algorithm that we do not offer", Some(&long.expect("a token"))).await;
    check("too long", Some(&format!("{good}{}", "x".repeat(MAX_CREDENTIAL_BYTES)))).await;
    check("nearly the secret", Some(&ADMIN[1..])).await;
    check("more than the secret", Some(&format!("{ADMIN} "))).await;
    check("zeros behind the secret", Some(&format!("{ADMIN}\0"))).await;
    assert_eq!(guard.identify(Some(ADMIN)).await.expect("let in").reach, Reach::Everything);
    assert_eq!(guard.identify(Some(&good)).await.expect("let in").reach, Reach::Tenant(Some("cafe".into())));
}

#[tokio::test]
async fn no_token_makes_itself_trusted() {
    let guard = guard(Keys::of_secret(SECRET), None);
    let mut claims = with("trusted", json!(true));
    claims["email"] = json!("ann@cafe.example");
    let claims = guard.identify(Some(&hs256(&claims))).await.expect("let in").ingest_claims("apply");
    assert_eq!(claims["trusted"], false);
    assert_eq!(claims["role"], "apply");
    assert_eq!(claims["email"], "ann@cafe.example");
    let claims = guard.identify(Some(&hs256(&with("role", json!("waiter"))))).await.expect("let in");
    assert_eq!(claims.ingest_claims("apply")["role"], "waiter");
    assert_eq!(Identity::trusted().ingest_claims("apply"), json!({"trusted": true, "role": "apply"}));
}

/// A key of a set, as issuers publish them.
fn published(issuer: &Issuer, id: &str) -> Value {
    let mut jwk = Jwk::from_encoding_key(&issuer.key, issuer.algorithm).expect("a key");
    jwk.common.key_id = Some(id.to_owned());
    serde_json::to_value(jwk).expect("JSON")
}

#[test]
fn a_set_of_keys_binds_each_to_its_algorithm() {
    let (rsa, ec) = (Issuer::new(Algorithm::RS256), Issuer::new(Algorithm::ES256));
    let mut unmarked = published(&ec, "unmarked");
    unmarked.as_object_mut().expect("an object").remove("alg");
    let mut encryption = published(&ec, "encryption");
    encryption["use"] = json!("enc");
    let mut stronger = published(&rsa, "stronger");
    stronger["alg"] = json!("RS512");
    let symmetric = json!({"kty": "oct", "kid": "symmetric", "alg": "HS256", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMko"});
    let unknown = json!({"kty": "quantum", "kid": "unknown", "alg": "Q1"});
    let list = [published(&rsa, "rsa"), unmarked, encryption, stronger, symmetric, unknown, json!(7)];
    let keys = Keys::of_set(&json!({ "keys": list })).expect("a set");
    let check = |algorithm, id: Option<&str>, expected: bool| {
        assert_eq!(keys.find(algorithm, id).is_some(), expected, "{algorithm:?} {id:?}");
    };
    check(Algorithm::RS256, Some("rsa"), true);
    check(Algorithm::RS256, None, true);
    check(Algorithm::ES256, Some("rsa"), false);
    check(Algorithm::ES256, Some("unmarked"), true);
    check(Algorithm::ES256, Some("encryption"), false);
    check(Algorithm::RS256, Some("stronger"), false);
    check(Algorithm::HS256, Some("symmetric"), false);
    check(Algorithm::HS256, None, false);
    check(Algorithm::RS256, Some("nobody"), false);
    assert!(Keys::of_set(&json!([])).is_none());
    let twice = Keys::of_set(&json!({"keys": [published(&rsa, "a"), published(&rsa, "b")]})).expect("a set");
    assert!(twice.find(Algorithm::RS256, None).is_none(), "which of the two?");
}

#[tokio::test]
async fn issuers_change_their_keys() {
    use axum::{Json, Router, extract::State, routing::get};
    use std::sync::Mutex;

    let (old, new) = (Issuer::new(Algorithm::ES256), Issuer::new(Algorithm::ES256));
    let issuer = Arc::new((Mutex::new(json!({"keys": [published(&old, "old")]})), Mutex::new(0)));
    let handler = async |State(served): State<Arc<(Mutex<Value>, Mutex<usize>)>>| {
        *served.1.lock().expect("a count") += 1;
        Json(served.0.lock().expect("a set").clone())
    };
    let router = Router::new().route("/keys", get(handler)).with_state(Arc::clone(&issuer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
    let server = tokio::spawn(axum::serve(listener, router).into_future());

    let jwks = Jwks::new(&url).expect("a URL").with_pauses(Duration::ZERO, Duration::from_mins(1));
    let guard = guard(Keys::default(), Some(jwks));
    let sign = |issuer: &Issuer, id: &str| {
        let mut header = Header::new(issuer.algorithm);
        header.kid = Some(id.to_owned());
        encode(&header, &claims(), &issuer.key).expect("a token")
    };
    let fetches = || *issuer.1.lock().expect("a count");
    assert!(guard.identify(Some(&sign(&old, "old"))).await.is_ok());
    assert!(guard.identify(Some(&sign(&old, "old"))).await.is_ok());
    assert_eq!(fetches(), 1, "keys are kept");
    assert!(guard.identify(Some(&sign(&new, "new"))).await.is_err());
    *issuer.0.lock().expect("a set") = json!({"keys": [published(&new, "new")]});
    assert!(guard.identify(Some(&sign(&new, "new"))).await.is_ok(), "a key that we do not know yet is looked for");
    assert!(guard.identify(Some(&sign(&old, "old"))).await.is_err(), "a withdrawn key does not count any more");
    let before = fetches();
    assert!(guard.identify(Some(&hs256(&claims()))).await.is_err(), "a published key is nobody's secret");
    assert_eq!(fetches(), before);
    server.abort();

    let gone = Jwks::new("http://127.0.0.1:1/keys").expect("a URL");
    let guard = self::guard(Keys::default(), Some(gone));
    let refusal = guard.identify(Some(&sign(&old, "old"))).await.expect_err("no keys");
    assert!(matches!(refusal, Refusal::Unavailable(_)), "{refusal}");
}

#[tokio::test]
async fn known_keys_do_not_wait_for_an_issuer_that_is_away() {
    use axum::{Json, Router, extract::State, routing::get};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;
    use tokio::time::timeout;

    const DEADLINE: Duration = Duration::from_secs(3); // less than the issuer has
    let (old, new) = (Issuer::new(Algorithm::ES256), Issuer::new(Algorithm::ES256));
    let sets = [json!({"keys": [published(&old, "old")]}), json!({"keys": [published(&new, "new")]})];
    let issuer = Arc::new((sets, AtomicUsize::new(0), Notify::new()));
    let handler = async |State(issuer): State<Arc<([Value; 2], AtomicUsize, Notify)>>| {
        let asked = issuer.1.fetch_add(1, Ordering::SeqCst);
        if asked > 0 {
            issuer.2.notified().await;
        }
        Json(issuer.0[asked.min(1)].clone())
    };
    let router = Router::new().route("/keys", get(handler)).with_state(Arc::clone(&issuer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
    let server = tokio::spawn(axum::serve(listener, router).into_future());
    let jwks = Jwks::new(&url).expect("a URL").with_pauses(Duration::ZERO, Duration::ZERO);
    let guard = guard(Keys::default(), Some(jwks));
    let sign = |issuer: &Issuer, id: &str| {
        let mut header = Header::new(issuer.algorithm);
        header.kid = Some(id.to_owned());
        encode(&header, &claims(), &issuer.key).expect("a token")
    };
    let known = sign(&old, "old");
    assert!(guard.identify(Some(&known)).await.is_ok());
    for _ in 0..3 {
        let judged = timeout(DEADLINE, guard.identify(Some(&known))).await;
        assert!(judged.expect("nobody waits").is_ok(), "the key is known, although it is not fresh any more");
    }
    let unknown = sign(&new, "new");
    let (unknown, known_meanwhile) = tokio::join!(guard.identify(Some(&unknown)), async {
        let judged = timeout(DEADLINE, guard.identify(Some(&known))).await;
        issuer.2.notify_one();
        judged
    });
    assert!(known_meanwhile.expect("nobody waits").is_ok(), "though a token with another key waits");
    assert!(unknown.is_ok(), "fetched meanwhile");
    assert_eq!(issuer.1.load(Ordering::SeqCst), 2, "one fetch for all");
    server.abort();
}
