//! The tokens of the auth callout: the broker's question, the statement about a user, and the answer around it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::{KeyPair, KeyPairType};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Connection, Entry, account_of};
use crate::moment;

/// The head of every token of NATS.
const HEAD: &str = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;
/// Whom the broker's question is for.
const AUDIENCE: &str = "nats-authorization-request";
/// How long a client may answer what it was asked on a hook, in nanoseconds: two minutes.
const RESPONSE_TTL_NS: u64 = 120_000_000_000;
/// How many subscriptions a plain client may have.
const MAX_SUBSCRIPTIONS: i64 = 1_024;
/// How a plain client may connect; a leafnode or an MQTT client with a token would be more than it was let in for.
const WAYS: [&str; 2] = ["STANDARD", "WEBSOCKET"];

/// A client that the broker asks about.
#[derive(Deserialize)]
pub(super) struct Asked {
    server_id: Server,
    /// The key that the broker has made for it; the statement is about nobody else.
    user_nkey: String,
    client_info: Info,
    #[serde(default)]
    connect_opts: Shown,
}

#[derive(Deserialize)]
struct Server {
    id: String,
}

#[derive(Deserialize)]
struct Info {
    /// The number of its connection at that broker.
    #[serde(default)]
    id: u64,
    #[serde(default)]
    host: String,
    #[serde(default)]
    name: String,
}

/// What the client has sent of itself. Not `Debug`, as it holds secrets.
#[derive(Default, Deserialize)]
struct Shown {
    #[serde(default)]
    auth_token: String,
    #[serde(default)]
    pass: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    nats: Asked,
}

impl Asked {
    /// Reads the broker's token, if one of a broker has signed it.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (signed, signature) = text.rsplit_once('.')?;
        let (_, claims) = signed.split_once('.')?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        let signer = KeyPair::from_public_key(&claims.iss).ok()?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        signer.verify(signed.as_bytes(), &signature).ok()?;
        let is_question = signer.key_pair_type() == KeyPairType::Server && claims.aud == AUDIENCE;
        is_question.then_some(claims.nats)
    }

    pub(super) fn shown(&self) -> Option<&str> {
        let Shown { auth_token, pass } = &self.connect_opts;
        [auth_token, pass]
            .into_iter()
            .find(|text| !text.is_empty())
            .map(String::as_str)
    }

    pub(super) fn client(&self) -> String {
        match self.client_info.name.as_str() {
            "" => self.client_info.host.clone(),
            name => format!("{name:?} at {}", self.client_info.host),
        }
    }

    /// Which connection it is, of which broker.
    pub(super) fn connection(&self) -> Connection {
        Connection {
            broker: self.server_id.id.clone(),
            number: self.client_info.id,
        }
    }

    /// The address that it comes from.
    pub(super) fn address(&self) -> &str {
        &self.client_info.host
    }
}

/// The connection that a broker says has ended.
pub(super) fn ended(event: &[u8]) -> Option<Connection> {
    #[derive(Deserialize)]
    struct Event {
        server: Server,
        client: Info,
    }
    let Event { server, client } = serde_json::from_slice(event).ok()?;
    Some(Connection {
        broker: server.id,
        number: client.id,
    })
}

/// What a broker says that was asked to do something.
pub(super) fn done(answer: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        error: Option<Problem>,
    }
    #[derive(Deserialize)]
    struct Problem {
        description: String,
    }
    match serde_json::from_slice::<Answer>(answer) {
        Ok(Answer { error: None }) => Ok(()),
        Ok(Answer { error: Some(problem) }) => Err(problem.description),
        Err(error) => Err(error.to_string()),
    }
}

/// The statement about a user.
pub(super) fn user(signer: &KeyPair, asked: &Asked, entry: &Entry) -> Option<String> {
    let mut claims = json!({
        "name": entry.name,
        "sub": asked.user_nkey,
        "aud": account_of(&entry.tenant),
        "exp": entry.expires_at,
        "nats": {
            "pub": only(&entry.publish),
            "sub": only(&entry.subscribe),
            "subs": MAX_SUBSCRIPTIONS,
            "data": -1,
            "payload": -1,
            "allowed_connection_types": WAYS,
            "type": "user",
            "version": 2,
        },
    });
    if entry.answers {
        // Once each, for as long as the broker knows where an answer goes.
        claims["nats"]["resp"] = json!({ "max": 1, "ttl": RESPONSE_TTL_NS });
    }
    sign(signer, claims)
}

/// A list that allows what stands in it. The broker reads an empty one as everything.
fn only(subjects: &[String]) -> Value {
    if subjects.is_empty() {
        json!({ "deny": [">"] })
    } else {
        json!({ "allow": subjects })
    }
}

/// The answer to the broker: the statement, or why there is none.
pub(super) fn response(signer: &KeyPair, asked: &Asked, user: Result<&str, &str>) -> Option<String> {
    let (key, text) = match user {
        Ok(statement) => ("jwt", statement),
        Err(reason) => ("error", reason),
    };
    let claims = json!({
        "sub": asked.user_nkey,
        "aud": asked.server_id.id,
        "nats": { key: text, "type": "authorization_response", "version": 2 },
    });
    sign(signer, claims)
}

fn sign(signer: &KeyPair, mut claims: Value) -> Option<String> {
    claims["iss"] = signer.public_key().into();
    claims["iat"] = moment::now_secs().into();
    claims["jti"] = uuid::Uuid::now_v7().simple().to_string().into();
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(HEAD),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let signature = signer.sign(signed.as_bytes()).ok()?;
    Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(signer: &KeyPair, aud: &str, shown: &Value) -> String {
        let claims = json!({
            "aud": aud,
            "nats": {
                "server_id": { "id": "NX" }, "user_nkey": "UX", "client_info": { "host": "h", "name": "n" },
                "connect_opts": shown,
            },
        });
        sign(signer, claims).expect("signed")
    }

    fn read(token: &str) -> Value {
        let claims = token.split('.').nth(1).expect("claims");
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).expect("Base64")).expect("JSON")
    }

    #[test]
    fn only_a_brokers_question_is_read() {
        let server = KeyPair::new_server();
        let asked = |text: &str| Asked::read(text.as_bytes());
        let good = question(
            &server,
            AUDIENCE,
            &json!({ "auth_token": "t", "pass": "p", "user": "u" }),
        );
        let read = asked(&good).expect("a question");
        assert_eq!((read.shown(), read.client().as_str()), (Some("t"), "\"n\" at h"));
        let by_password = question(&server, AUDIENCE, &json!({ "pass": "p" }));
        assert_eq!(asked(&by_password).expect("a question").shown(), Some("p"));
        let nothing = question(&server, AUDIENCE, &json!({}));
        assert_eq!(asked(&nothing).expect("a question").shown(), None);
        assert!(asked(&question(&server, "else", &json!({}))).is_none());
        assert!(asked(&question(&KeyPair::new_account(), AUDIENCE, &json!({}))).is_none());
        let other = question(&KeyPair::new_server(), AUDIENCE, &json!({ "pass": "x" }));
        let (claims, _) = good.rsplit_once('.').expect("parts");
        let (_, signature) = other.rsplit_once('.').expect("parts");
        for bad in [
            format!("{claims}.{signature}"),
            String::new(),
            "a.b".to_owned(),
            "a.b.c".to_owned(),
        ] {
            assert!(asked(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_connection_is_known_again_when_it_ends() {
        let server = KeyPair::new_server();
        let claims = json!({ "aud": AUDIENCE, "nats": {
            "server_id": { "id": "NX" }, "user_nkey": "UX", "client_info": { "host": "h", "id": 7 },
        } });
        let question = sign(&server, claims).expect("signed");
        let asked = Asked::read(question.as_bytes()).expect("a question");
        let event = br#"{"type":"x","server":{"id":"NX","name":"n"},"client":{"id":7,"acc":"A","rtt":1},"reason":"Kicked"}"#;
        assert_eq!(ended(event), Some(asked.connection()));
        assert_eq!(ended(b"{}"), None);
        assert_eq!(done(br#"{"server":{"id":"NX"}}"#), Ok(()));
        let refused = done(br#"{"server":{},"error":{"code":500,"description":"no such client"}}"#);
        assert_eq!(refused, Err("no such client".to_owned()));
    }

    #[test]
    fn who_may_publish_nothing_is_not_let_publish_everything() {
        let (server, account) = (KeyPair::new_server(), KeyPair::new_account());
        let asked = Asked::read(question(&server, AUDIENCE, &json!({})).as_bytes()).expect("a question");
        let entry = Entry {
            tenant: "acme inc".to_owned(),
            name: "ann".to_owned(),
            publish: Vec::new(),
            subscribe: vec!["_INBOX_x.>".to_owned()],
            answers: false,
            expires_at: 7,
        };
        let user = read(&user(&account, &asked, &entry).expect("signed"));
        assert_eq!(user["nats"]["pub"], json!({ "deny": [">"] }));
        assert_eq!(user["nats"]["sub"], json!({ "allow": ["_INBOX_x.>"] }));
        assert_eq!(
            (&user["aud"], &user["exp"], &user["sub"]),
            (&json!("TENANT_acme_20inc"), &json!(7), &json!("UX"))
        );
        let refused = read(&response(&account, &asked, Err("no")).expect("signed"));
        assert_eq!(
            (&refused["aud"], &refused["nats"]["error"]),
            (&json!("NX"), &json!("no"))
        );
    }
}
