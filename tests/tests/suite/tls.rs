//! TLS at the door, and clients that come with a certificate.

use bus_schema::audit::{Kind, Record};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tests::{
    certificates::{Authority, Certificate, Named, connect},
    eventually,
    http::modern_body,
    issuer::Issuer,
    platform::Platform,
    raw::{Raw, Reply, post},
    recorded::Recorded,
    whoami::WhoAmI,
    within,
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Error, Message},
};
use trunkline::node::Adds;

const PATH: &str = "/servers/whoami/mcp";

/// A platform behind TLS, with a server that tells callers who they are.
struct Stage {
    authority: Authority,
    clients: Authority,
    folder: tempfile::TempDir,
    platform: Platform,
    _host: runtime::Host,
}

impl Stage {
    /// `auth` is what the file says of who may come in, `tls` what it says of clients beside their authority.
    async fn start(auth: &str, tls: &str) -> Self {
        let (authority, clients) = (Authority::new(), Authority::new());
        let folder = tempfile::tempdir().expect("a folder");
        authority.for_door().write(folder.path());
        std::fs::write(folder.path().join("clients.crt"), clients.pem()).expect("written");
        std::fs::write(folder.path().join("clients.crl"), clients.taken_back(&[])).expect("written");
        let path = |name: &str| json!(folder.path().join(name));
        let file = format!(
            "limits = []\n[http.tls]\ncert = {}\nkey = {}\nclient_ca = {}\nclient_crl = {}\n{tls}\n{auth}",
            path("door.crt"),
            path("door.key"),
            path("clients.crt"),
            path("clients.crl"),
        );
        let platform = Platform::start(&file, &[]).await;
        let host = WhoAmI::serve(platform.node.bus()).await;
        platform.knows("whoami").await;
        Self {
            authority,
            clients,
            folder,
            platform,
            _host: host,
        }
    }

    fn at(&self) -> std::net::SocketAddr {
        self.platform.node.http().expect("HTTP is open")
    }

    async fn connect(&self, shows: Option<&Certificate>) -> Raw {
        let stream = connect(self.at(), &self.authority.pem(), shows, &["http/1.1"]).await;
        Raw::over(stream.expect("a handshake"))
    }

    /// The status of a call on a connection of its own, and who the server saw.
    async fn call(&self, shows: Option<&Certificate>, headers: &[(&str, &str)]) -> (u16, Value) {
        call(&mut self.connect(shows).await, headers).await
    }

    /// Has the platform read another file.
    async fn reload(&mut self, file: &std::path::Path, text: &str) {
        std::fs::write(file, text).expect("the file is written");
        let new = self.platform.config.again().expect("it is right");
        let node = &mut self.platform.node;
        node.reload(&self.platform.config, &new, Adds::AllOfTheFile).await;
        self.platform.config = new;
    }

    fn client(&self, named: Named) -> Certificate {
        self.clients.for_client(&named)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).expect("written");
    }
}

/// Calls the tool that says who calls.
async fn call(raw: &mut Raw, headers: &[(&str, &str)]) -> (u16, Value) {
    let body = modern_body("tools/call", json!({ "name": "whoami", "arguments": {} })).to_string();
    let usual = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "whoami"),
    ];
    assert!(raw.send(post(PATH, &[&usual, headers].concat(), &body)).await);
    let Reply { status, body, .. } = raw.reply().await.expect("an answer");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    match status {
        200 => (status, answer["result"]["structuredContent"].clone()),
        _ => (status, answer),
    }
}

const LINES: &str = "[auth]\nmode = \"certificates\"\n\
    [[auth.certificates]]\nuri = \"spiffe://acme.example/*\"\nroles = [\"robot\"]\nscopes = [\"a\", \"b\"]\n\
    [[auth.certificates]]\nemail = \"*@acme.example\"\n\
    [[auth.certificates]]\ndns = \"*.ci.acme.example\"\nsubject = \"ci\"\n\
    [[auth.certificates]]\ndn = \"CN=ops,O=Acme\"\nroles = [\"operator\"]\n\
    [[auth.certificates]]\ndns = \"elsewhere.example\"\ntenant = \"other\"\n";

#[tokio::test]
async fn a_client_certificate_says_who_comes() {
    let stage = Stage::start(LINES, "").await;
    let named = |cn| Named {
        cn,
        ..Named::default()
    };
    for (certificate, subject, roles) in [
        (
            Named {
                uris: &["spiffe://acme.example/bot"],
                ..named("x")
            },
            "spiffe://acme.example/bot",
            json!(["robot"]),
        ),
        (
            Named {
                emails: &["ann@acme.example"],
                ..named("x")
            },
            "ann@acme.example",
            Value::Null,
        ),
        (
            Named {
                dns: &["A7.ci.acme.example"],
                ..named("x")
            },
            "ci",
            Value::Null,
        ),
        (named("ops"), "CN=ops,O=Acme", json!(["operator"])),
    ] {
        let (status, who) = stage.call(Some(&stage.client(certificate.clone())), &[]).await;
        assert_eq!(
            (status, &who["subject"], &who["roles"]),
            (200, &json!(subject), &roles),
            "{certificate:?}: {who}"
        );
        assert_eq!(who["issuer"], "urn:trunkline:certificate");
    }
    // What a proxy would write is read by nobody.
    let forwarded = [(
        "x-forwarded-client-cert",
        "Subject=\"CN=ops,O=Acme\";URI=spiffe://acme.example/bot",
    )];
    for (certificate, status, words) in [
        (Some(named("somebody")), 401, "none of its names is known"),
        (Some(named("ops,O=Acme")), 401, "none of its names is known"),
        (
            Some(Named {
                uris: &["spiffe://acme.example.evil/bot"],
                ..named("x")
            }),
            401,
            "none of its names",
        ),
        (
            Some(Named {
                uris: &["spiffe://acme.example/ns/bot"],
                ..named("x")
            }),
            401,
            "none of its names",
        ),
        (
            Some(Named {
                dns: &["elsewhere.example"],
                ..named("x")
            }),
            403,
            "tenant",
        ),
        (None, 401, "connect with a client certificate"),
    ] {
        let shown = certificate.map(|named| stage.client(named));
        let (found, answer) = stage.call(shown.as_ref(), &forwarded).await;
        assert_eq!(found, status, "{answer}");
        assert!(
            answer["error_description"]
                .as_str()
                .expect("words")
                .contains(words),
            "{answer}"
        );
    }
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_not_genuine_does_not_get_through_the_handshake() {
    let stage = Stage::start(LINES, "").await;
    let ops = Named {
        cn: "ops",
        ..Named::default()
    };
    let foreign = Authority::new().for_client(&ops);
    let recorded = Recorded::start(&stage.platform).await;
    let ended = stage.client(Named {
        ended: true,
        ..ops.clone()
    });
    for bad in [foreign, ended] {
        // With TLS 1.3 a client hears of it only when it reads.
        let refused = match connect(stage.at(), &stage.authority.pem(), Some(&bad), &["http/1.1"]).await {
            Err(_) => true,
            Ok(stream) => {
                let mut raw = Raw::over(stream);
                let _ = raw.send("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
                raw.read_to_end().await.is_empty()
            }
        };
        assert!(refused);
    }
    let is_one =
        |record: &&Record| (record.kind, record.rule.as_str()) == (Kind::Auth, "invalid_certificate");
    eventually("both on record", async || {
        recorded.all().iter().filter(is_one).count() == 2
    })
    .await;
    recorded.stop().await;
    // Nobody is spoken to in another protocol, or without TLS.
    assert!(
        connect(stage.at(), &stage.authority.pem(), None, &["h2"])
            .await
            .is_err()
    );
    let mut plain = Raw::connect(stage.at()).await;
    assert!(
        plain
            .send("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await
    );
    let told = plain.read_to_end().await;
    assert!(
        told.starts_with("HTTP/1.1 400 ") && told.contains("https"),
        "{told}"
    );
    stage.platform.stop().await;
}

#[tokio::test]
async fn everybody_may_have_to_show_a_certificate() {
    let stage = Stage::start(LINES, "client_certificates = \"required\"").await;
    let refused = match connect(stage.at(), &stage.authority.pem(), None, &["http/1.1"]).await {
        Err(_) => true,
        Ok(stream) => Raw::over(stream).read_to_end().await.is_empty(),
    };
    assert!(refused);
    let ops = stage.client(Named {
        cn: "ops",
        ..Named::default()
    });
    assert_eq!(stage.call(Some(&ops), &[]).await.0, 200);
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_token_says_who_asks_and_a_certificate_what_carries_it() {
    let issuer = Issuer::start().await;
    let lines = LINES.replace("[auth]\nmode = \"certificates\"\n", "");
    let stage = Stage::start(&issuer.section(&lines), "").await;
    let url = stage.platform.url("");
    assert!(url.starts_with("https://"), "{url}");
    let ops = stage.client(Named {
        cn: "ops",
        ..Named::default()
    });
    let unknown = stage.client(Named {
        cn: "gateway",
        ..Named::default()
    });
    let elsewhere = stage.client(Named {
        cn: "x",
        dns: &["elsewhere.example"],
        ..Named::default()
    });
    let bearer = |more: Value| format!("Bearer {}", issuer.token("ann", &url, more));
    let usual = bearer(json!({}));
    let bound = bearer(json!({ "cnf": { "x5t#S256": ops.thumbprint() } }));
    let by_key = bearer(json!({ "cnf": { "jkt": "x" } }));
    let both = bearer(json!({ "cnf": { "jkt": "x", "x5t#S256": ops.thumbprint() } }));
    let old = bearer(json!({ "exp": 1 }));
    for (name, shows, token, expected, who) in [
        ("a token without a certificate", None, &*usual, 200, "ann"),
        ("a token with a certificate", Some(&ops), &usual, 200, "ann"),
        (
            "a token with one that means nobody",
            Some(&unknown),
            &usual,
            200,
            "ann",
        ),
        (
            "a token with one of another tenant",
            Some(&elsewhere),
            &usual,
            403,
            "",
        ),
        ("a bad token with a good certificate", Some(&ops), &old, 401, ""),
        (
            "another scheme with a good certificate",
            Some(&ops),
            "Basic YTpi",
            401,
            "",
        ),
        (
            "a bound token with its certificate",
            Some(&ops),
            &bound,
            200,
            "ann",
        ),
        ("a bound token with another", Some(&unknown), &bound, 401, ""),
        ("a bound token without", None, &bound, 401, ""),
        ("a token bound to a key", Some(&ops), &by_key, 401, ""),
        ("a token bound to both", Some(&ops), &both, 401, ""),
    ] {
        let (status, answer) = stage.call(shows, &[("authorization", token)]).await;
        assert_eq!(status, expected, "{name}: {answer}");
        assert_eq!(
            answer["subject"].as_str().unwrap_or_default(),
            who,
            "{name}: {answer}"
        );
    }
    // Without a token the certificate is what comes.
    let (status, who) = stage.call(Some(&ops), &[]).await;
    assert_eq!((status, &who["subject"]), (200, &json!("CN=ops,O=Acme")));
    stage.platform.stop().await;
}

#[tokio::test]
async fn changed_files_are_for_new_connections_and_old_ones_go_on() {
    let stage = Stage::start(LINES, "").await;
    let ops = stage.client(Named {
        cn: "ops",
        ..Named::default()
    });
    let bot = stage.client(Named {
        cn: "x",
        uris: &["spiffe://acme.example/bot"],
        ..Named::default()
    });
    let (mut of_ops, mut of_bot) = (stage.connect(Some(&ops)).await, stage.connect(Some(&bot)).await);
    for raw in [&mut of_ops, &mut of_bot] {
        assert_eq!(call(raw, &[]).await.0, 200);
    }
    // What cannot be used changes nothing.
    stage.write("door.crt", "no certificate");
    let other = Authority::new();
    stage.write("door.key", &other.for_door().key);
    assert_eq!(stage.call(Some(&ops), &[]).await.0, 200);
    // Another certificate of another authority: new connections see it, those that are open go on.
    other.for_door().write(stage.folder.path());
    eventually("the new certificate", async || {
        connect(stage.at(), &other.pem(), None, &[]).await.is_ok()
    })
    .await;
    assert!(
        connect(stage.at(), &stage.authority.pem(), None, &[])
            .await
            .is_err()
    );
    assert_eq!(call(&mut of_ops, &[]).await.0, 200);
    // A certificate that is taken back counts no more, also where a connection is open.
    stage.write("clients.crl", &stage.clients.taken_back(&[&ops]));
    eventually("the end of what was taken back", async || {
        call(&mut of_ops, &[]).await.0 == 401
    })
    .await;
    assert_eq!(call(&mut of_bot, &[]).await.0, 200);
    // So does one whose authority is trusted no more.
    stage.write("clients.crt", &other.pem());
    eventually("the end of what is not trusted", async || {
        call(&mut of_bot, &[]).await.0 == 401
    })
    .await;
    stage.platform.stop().await;
}

#[tokio::test]
async fn other_files_that_the_configuration_names_are_taken_while_the_door_is_open() {
    let mut stage = Stage::start(LINES, "").await;
    let ops = stage.client(Named {
        cn: "ops",
        ..Named::default()
    });
    let mut open = stage.connect(Some(&ops)).await;
    let (file, other) = (stage.platform.folder().join("trunkline.toml"), Authority::new());
    let before = std::fs::read_to_string(&file).expect("the file");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let named = |folder: &std::path::Path| folder.display().to_string();
    let new = before
        .replace(
            &named(&stage.folder.path().join("door.crt")),
            &named(&elsewhere.path().join("door.crt")),
        )
        .replace(
            &named(&stage.folder.path().join("door.key")),
            &named(&elsewhere.path().join("door.key")),
        );
    assert_ne!(new, before);
    // Where there is nothing yet, nothing changes.
    stage.reload(&file, &new).await;
    assert_eq!(stage.call(Some(&ops), &[]).await.0, 200);
    other.for_door().write(elsewhere.path());
    eventually("the new certificate", async || {
        connect(stage.at(), &other.pem(), None, &[]).await.is_ok()
    })
    .await;
    assert_eq!(call(&mut open, &[]).await.0, 200, "who is connected goes on");
    // Who has to show a certificate is a setting, too.
    let required = new.replace("[auth]", "client_certificates = \"required\"\n[auth]");
    stage.reload(&file, &required).await;
    eventually("nobody comes in without", async || {
        match connect(stage.at(), &other.pem(), None, &["http/1.1"]).await {
            Ok(stream) => {
                let mut raw = Raw::over(stream);
                // The client hears of it instead of its first answer.
                !raw.send(post(PATH, &[], "{}")).await || raw.reply().await.is_none()
            }
            Err(_) => true,
        }
    })
    .await;
    stage.platform.stop().await;
}

#[tokio::test]
async fn who_never_finishes_a_handshake_keeps_nobody_out() {
    let stage = Stage::start(LINES, "").await;
    let mut slow = Vec::new();
    for _ in 0..300 {
        let mut raw = Raw::connect(stage.at()).await;
        // The beginning of a record, and nothing more.
        assert!(raw.send([0x16, 0x03, 0x01]).await);
        slow.push(raw);
    }
    let ops = stage.client(Named {
        cn: "ops",
        ..Named::default()
    });
    assert_eq!(stage.call(Some(&ops), &[]).await.0, 200);
    // The oldest had to give way.
    assert!(slow.remove(0).read_to_end().await.is_empty());
    drop(slow);
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_websocket_opens_behind_tls_with_a_certificate() {
    let stage = Stage::start(LINES, "").await;
    let url = "wss://localhost/servers/whoami/ws";
    let ops = stage.client(Named {
        cn: "ops",
        ..Named::default()
    });
    let stream = connect(stage.at(), &stage.authority.pem(), Some(&ops), &["http/1.1"]).await;
    let (mut socket, _) = within(
        "the WebSocket",
        Box::pin(client_async(url, stream.expect("a handshake"))),
    )
    .await
    .expect("opens");
    within("the close", socket.close(None)).await.expect("closes");
    let stream = connect(stage.at(), &stage.authority.pem(), None, &["http/1.1"]).await;
    let refused = within(
        "the refusal",
        Box::pin(client_async(url, stream.expect("a handshake"))),
    )
    .await;
    assert!(matches!(refused, Err(Error::Http(answer)) if answer.status() == 401));
    stage.platform.stop().await;
}

#[tokio::test]
async fn a_websocket_whose_certificate_is_taken_back_is_closed() {
    let stage = Stage::start(LINES, "").await;
    let url = "wss://localhost/servers/whoami/ws";
    let ops = stage.client(Named {
        cn: "ops",
        ..Named::default()
    });
    let bot = stage.client(Named {
        cn: "x",
        uris: &["spiffe://acme.example/bot"],
        ..Named::default()
    });
    let open = async |shows: &Certificate| {
        let stream = connect(stage.at(), &stage.authority.pem(), Some(shows), &["http/1.1"]).await;
        let opening = Box::pin(client_async(url, stream.expect("a handshake")));
        within("the WebSocket", opening).await.expect("opens").0
    };
    let (mut of_ops, mut of_bot) = (open(&ops).await, open(&bot).await);
    stage.write("clients.crl", &stage.clients.taken_back(&[&ops]));
    let last = within("the close", async {
        loop {
            match of_ops.next().await.expect("a close").expect("a frame") {
                Message::Close(frame) => return frame.expect("a reason"),
                other => assert!(other.is_ping(), "{other:?}"),
            }
        }
    })
    .await;
    assert_eq!(u16::from(last.code), 3000, "{last:?}");
    assert!(last.reason.contains("certificate"), "{last:?}");
    // Others go on.
    let list = modern_body("tools/list", json!({}));
    of_bot
        .send(Message::text(list.to_string()))
        .await
        .expect("it is open");
    let answer = within("an answer", async {
        loop {
            if let Message::Text(text) = of_bot.next().await.expect("an answer").expect("a frame") {
                return text.to_string();
            }
        }
    })
    .await;
    assert!(answer.contains("\"tools\""), "{answer}");
    stage.platform.stop().await;
}
