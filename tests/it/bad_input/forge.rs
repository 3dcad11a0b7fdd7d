//! Statements that are almost right: signed well, by the right key, and wrong in one thing.

use assent::crypto::generate::{generate_ed25519, generate_p256};
use assent::crypto::jose::thumbprint;
use assent::crypto::{base64url, from_base64url};
use assent::domain::device::PublicKey;
use assent::phone::Phone;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

/// A private key that signs whatever it is given.
pub struct Pen {
    algorithm: Algorithm,
    key: EncodingKey,
    pub public: PublicKey,
    pub kid: String,
}

impl Pen {
    pub fn p256() -> Self {
        let (pkcs8, public) = generate_p256();
        Self::new(Algorithm::ES256, EncodingKey::from_ec_der(&pkcs8), public)
    }

    pub fn ed25519() -> Self {
        let (pkcs8, public) = generate_ed25519();
        Self::new(Algorithm::EdDSA, EncodingKey::from_ed_der(&pkcs8), public)
    }

    /// The key of an enrolled phone.
    pub fn of(phone: &Phone) -> Self {
        let file = json!(phone.to_file());
        let pkcs8 = from_base64url(file["private_key"].as_str().unwrap()).unwrap();
        let public = PublicKey::from_jwk(&file["public_key"]).unwrap();
        Self::new(Algorithm::ES256, EncodingKey::from_ec_der(&pkcs8), public)
    }

    fn new(algorithm: Algorithm, key: EncodingKey, public: PublicKey) -> Self {
        Self {
            kid: thumbprint(&public).to_string(),
            algorithm,
            key,
            public,
        }
    }

    pub fn jwk(&self) -> Value {
        serde_json::from_str(&self.public.canonical_jwk()).unwrap()
    }

    /// As it stands in a key set.
    pub fn jwk_with_kid(&self) -> Value {
        let mut jwk = self.jwk();
        jwk["kid"] = json!(self.kid);
        jwk
    }

    fn header(&self, typ: &str) -> String {
        json!({ "alg": self.public.algorithm(), "kid": self.kid, "typ": typ }).to_string()
    }

    pub fn sign(&self, typ: &str, claims: &Value) -> String {
        self.sign_bytes(&self.header(typ), claims.to_string().as_bytes())
    }

    fn sign_bytes(&self, header: &str, payload: &[u8]) -> String {
        self.sign_parts(&base64url(header.as_bytes()), &base64url(payload))
    }

    fn sign_parts(&self, header: &str, payload: &str) -> String {
        let input = format!("{header}.{payload}");
        let signature = jsonwebtoken::crypto::sign(input.as_bytes(), &self.key, self.algorithm);
        format!("{input}.{}", signature.unwrap())
    }
}

/// The JOSE header, in every way that must not be accepted. `ALG`, `KID` and `TYP` are the right values.
#[rustfmt::skip]
const HEADERS: &[&str] = &[
    r#"{"alg":"none","kid":"KID","typ":"TYP"}"#,
    r#"{"alg":"None","kid":"KID","typ":"TYP"}"#,
    r#"{"alg":"","kid":"KID","typ":"TYP"}"#,
    r#"{"alg":"HS256","kid":"KID","typ":"TYP"}"#,
    r#"{"alg":"RS256","kid":"KID","typ":"TYP"}"#,
    r#"{"alg":"PS256","kid":"KID","typ":"TYP"}"#,
    r#"{"alg":"ES384","kid":"KID","typ":"TYP"}"#,
    r#"{"alg":"ES256K","kid":"KID","typ":"TYP"}"#,
    r#"{"alg":"EdDSA","kid":"KID","typ":"TYP"}"#,
    r#"{"alg":"es256","kid":"KID","typ":"TYP"}"#,
    r#"{"alg":"ES256 ","kid":"KID","typ":"TYP"}"#,
    r#"{"alg":"dir","enc":"A256GCM","kid":"KID","typ":"TYP"}"#,
    r#"{"alg":["ES256"],"kid":"KID","typ":"TYP"}"#,
    r#"{"alg":null,"kid":"KID","typ":"TYP"}"#,
    r#"{"alg":256,"kid":"KID","typ":"TYP"}"#,
    r#"{"kid":"KID","typ":"TYP"}"#,
    r#"{"alg":"none","alg":"ALG","kid":"KID","typ":"TYP"}"#,
    r#"{"alg":"ALG","alg":"none","kid":"KID","typ":"TYP"}"#,
    r#"{"alg":"ALG","\u0061lg":"ALG","kid":"KID","typ":"TYP"}"#,
    r#"{"alg":"ALG","kid":"KID"}"#,
    r#"{"alg":"ALG","kid":"KID","typ":""}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"JWT"}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"at+jwt"}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"dpop+jwt"}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"TYP "}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"xTYP"}"#,
    r#"{"alg":"ALG","kid":"KID","typ":["TYP"]}"#,
    r#"{"alg":"ALG","kid":"KID","typ":null}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"TYP","typ":"TYP"}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"TYP","crit":["exp"],"exp":1}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"TYP","crit":[]}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"TYP","crit":["b64"],"b64":true}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"TYP","crit":null}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"TYP","b64":false}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"TYP","zip":"DEF"}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"TYP","jku":"https://evil.example/jwks"}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"TYP","x5u":"https://evil.example/cert"}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"TYP","x5c":["MAA="]}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"TYP","jwk":JWK}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"TYP","kid":"KID"}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"TYP"} x"#,
    r#"{"alg":"ALG","kid":"KID","typ":"TYP"}{}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"TYP","x":[[[[[[[[[[[[[[1]]]]]]]]]]]]]]}"#,
    r#"{"alg":"ALG","kid":"KID","typ":"TYP",}"#,
    r#"[{"alg":"ALG","kid":"KID","typ":"TYP"}]"#,
    r#"["ALG","KID","TYP"]"#,
    r#""ALG""#, "null", "1", "", " ", "{", "{}", "\u{feff}{}",
];

/// Instead of the right `kid`, as JSON, where a `kid` is called for.
#[rustfmt::skip]
const KIDS: &[&str] = &[
    "null", "7", "[]", "{}", "true", r#""""#, r#"" ""#, r#"["KID"]"#, r#"" KID""#, r#""KID ""#, r#""KID=""#,
    r#""KID\u0000""#, r#""KID/../KID""#, r#""../../../../dev/null""#, r#""/dev/null""#, r#""file:///dev/null""#,
    r#""' OR '1'='1""#, r#""KID'--""#, r#""%""#, r#""*""#, r#""https://evil.example/key""#, r#""$(id)""#,
    r#""did:jwk:KID""#, r#""AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA""#,
];

/// Payloads that are no claims, whoever signs them.
#[rustfmt::skip]
const PAYLOADS: &[&[u8]] = &[
    b"null", b"true", b"1", b"\"x\"", b"[]", b"[{}]", b"{}", b"{", b" ", b"x", b"\xef\xbb\xbf{}", b"{\"iss\":\"\xff\"}",
    b"[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]",
];

/// Every way to sign `claims` as a `typ` that must be refused, each with its name.
pub fn forgeries(pen: &Pen, typ: &str, claims: &Value) -> Vec<(String, String)> {
    let text = claims.to_string();
    let right = |template: &str| {
        template
            .replace("ALG", pen.public.algorithm().as_str())
            .replace("KID", &pen.kid)
            .replace("TYP", typ)
            .replace("JWK", &pen.public.canonical_jwk())
    };
    let mut forged = Vec::new();
    let own = right(r#"{"alg":"ALG""#);
    let headers = HEADERS.iter().filter(|header| {
        // A key's own algorithm is no forgery.
        !header.starts_with(&own)
    });
    for header in headers {
        let token = pen.sign_bytes(&right(header), text.as_bytes());
        forged.push((format!("header {header}"), token));
    }
    for payload in PAYLOADS {
        let token = pen.sign_bytes(&pen.header(typ), payload);
        forged.push((
            format!("payload {:?}", String::from_utf8_lossy(payload)),
            token,
        ));
    }
    for (name, payload) in misshapen(claims) {
        forged.push((name, pen.sign_bytes(&pen.header(typ), payload.as_bytes())));
    }
    forged.extend(misspelled(pen, typ, &text));
    forged.extend(wrongly_signed(pen, typ, &text));
    forged
}

/// The claims with one value that is another, and a name for that.
pub fn altered(claims: &Value, name: &str, value: Value) -> (String, Value) {
    let shown = format!("{name} = {:.60}", value.to_string());
    let mut changed = claims.clone();
    changed[name] = value;
    (shown, changed)
}

/// The values of the claims without their names, in the order in which our code happens to list them.
pub fn nameless(pen: &Pen, typ: &str, claims: &Value, order: &[&str]) -> (String, String) {
    let values: Vec<&Value> = order.iter().map(|name| &claims[*name]).collect();
    ("claims without names".into(), pen.sign(typ, &json!(values)))
}

/// The right claims in a shape that two readers could read differently.
fn misshapen(claims: &Value) -> Vec<(String, String)> {
    let text = claims.to_string();
    let open = text.strip_suffix('}').unwrap();
    #[rustfmt::skip]
    let mut bad = vec![
        ("payload twice".into(), format!("{text}{text}")),
        ("payload and more".into(), format!("{text} x")),
        ("payload in an array".into(), format!("[{text}]")),
        ("payload in a string".into(), json!(text).to_string()),
        ("payload with a comma".into(), format!("{open},}}")),
        ("payload with an unknown member".into(), format!(r#"{open},"admin":true}}"#)),
        ("payload with exp".into(), format!(r#"{open},"exp":9999999999}}"#)),
        ("payload with an empty name".into(), format!(r#"{open},"":1}}"#)),
    ];
    for (name, value) in claims.as_object().unwrap() {
        let twice = format!(r#"{open},"{name}":{value}}}"#);
        bad.push((format!("{name} twice"), twice));
        let escaped: String = name
            .chars()
            .map(|c| format!("\\u{:04x}", c as u32))
            .collect();
        bad.push((
            format!("{name} twice, once escaped"),
            format!(r#"{open},"{escaped}":{value}}}"#),
        ));
        let mut without = claims.clone();
        without.as_object_mut().unwrap().remove(name);
        bad.push((format!("{name} missing"), without.to_string()));
        let odd = [
            json!([value]),
            json!({ "x": value }),
            json!(1.5),
            json!("\u{0}"),
            Value::Null,
        ];
        for other in odd {
            if name == "jti" && other == "\u{0}" {
                continue; // Any text identifies.
            }
            let mut changed = claims.clone();
            changed[name] = other;
            bad.push((format!("{name} = {}", changed[name]), changed.to_string()));
        }
    }
    bad
}

/// The right header, payload and signature in another spelling.
fn misspelled(pen: &Pen, typ: &str, claims: &str) -> Vec<(String, String)> {
    // With padding bits to spare in header and payload, and with letters that base64 spells otherwise.
    let spaced = |text: &str| text.to_owned() + &" ".repeat((4 - text.len() % 3) % 3);
    let (header, payload) = (spaced(&pen.header(typ)), spaced(claims));
    let spelled = |token: &String| token.rsplit('.').next().unwrap().contains(['-', '_']);
    let token = (0..)
        .map(|more| payload.clone() + &" ".repeat(3 * more))
        .map(|payload| pen.sign_bytes(&header, payload.as_bytes()))
        .find(spelled)
        .unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let (h, p, s) = (parts[0], parts[1], parts[2]);
    let long = pen.sign_bytes(
        &header,
        (claims.to_owned() + &" ".repeat(20_000)).as_bytes(),
    );
    let bent_signature = bend(s);
    let json = json!({ "protected": h, "payload": p, "signature": s }).to_string();
    #[rustfmt::skip]
    let odd = [
        ("nothing", String::new()),
        ("a dot", ".".into()),
        ("two dots", "..".into()),
        ("two parts", format!("{h}.{p}")),
        ("no signature", format!("{h}.{p}.")),
        ("no header", format!(".{p}.{s}")),
        ("no payload", format!("{h}..{s}")),
        ("a fourth part", format!("{h}.{p}.{s}.{s}")),
        ("a dot behind", format!("{h}.{p}.{s}.")),
        ("five parts", format!("{h}.{p}.{s}.{p}.{s}")),
        ("parts exchanged", format!("{p}.{h}.{s}")),
        ("padding", format!("{h}.{p}.{s}=")),
        ("more padding", format!("{h}.{p}.{s}==")),
        ("a space behind", format!("{h}.{p}.{s}%20")),
        ("a letter behind", format!("{h}.{p}.{s}A")),
        ("a letter less", format!("{h}.{p}.{}", &s[..s.len() - 1])),
        ("another alphabet", format!("{h}.{p}.{}", s.replace('-', "+").replace('_', "/"))),
        ("spare bits in the signature", format!("{h}.{p}.{bent_signature}")),
        ("spare bits in the header", pen.sign_parts(&bend(h), p)),
        ("spare bits in the payload", pen.sign_parts(h, &bend(p))),
        ("padding in the header", pen.sign_parts(&format!("{h}="), p)),
        ("padding in the payload", pen.sign_parts(h, &format!("{p}="))),
        ("not base64", pen.sign_parts(h, "!!!!")),
        ("as JSON", json),
        ("longer than 16 KiB", long),
    ];
    odd.map(|(name, token)| (name.to_owned(), token)).into()
}

/// The right statement, signed by the wrong key or not really.
fn wrongly_signed(pen: &Pen, typ: &str, claims: &str) -> Vec<(String, String)> {
    let token = pen.sign_bytes(&pen.header(typ), claims.as_bytes());
    let (input, signature) = token.rsplit_once('.').unwrap();
    let raw = from_base64url(signature).unwrap();
    let with = |bytes: &[u8]| format!("{input}.{}", base64url(bytes));
    let stranger = Pen::p256();
    let strange = stranger.sign_bytes(&pen.header(typ), claims.as_bytes());
    let other = pen.sign_bytes(&pen.header(typ), b"{}");
    #[rustfmt::skip]
    let mut bad = vec![
        ("signature of zeroes", with(&[0; 64])),
        ("signature with r = 0", with(&[&[0; 32], &raw[32..]].concat())),
        ("signature with s = 0", with(&[&raw[..32], &[0; 32]].concat())),
        ("signature of ones", with(&[0xff; 64])),
        ("signature in DER", with(&der(&raw))),
        ("signature with a zero before", with(&[&[0], raw.as_slice()].concat())),
        ("signature halves exchanged", with(&[&raw[32..], &raw[..32]].concat())),
        ("signature of something else", with(&from_base64url(other.rsplit('.').next().unwrap()).unwrap())),
        ("another key", strange),
        ("another key, its own kid", stranger.sign_bytes(&stranger.header(typ), claims.as_bytes())),
    ];
    // The public key taken for a shared secret.
    let header = json!({ "alg": "HS256", "kid": pen.kid, "typ": typ }).to_string();
    let input = format!(
        "{}.{}",
        base64url(header.as_bytes()),
        base64url(claims.as_bytes())
    );
    for secret in [pen.public.canonical_jwk(), pen.kid.clone(), String::new()] {
        let key = EncodingKey::from_secret(secret.as_bytes());
        let mac = jsonwebtoken::crypto::sign(input.as_bytes(), &key, Algorithm::HS256);
        bad.push((
            "public key as a secret",
            format!("{input}.{}", mac.unwrap()),
        ));
    }
    bad.into_iter()
        .map(|(name, token)| (name.to_owned(), token))
        .collect()
}

/// The statement under every `kid` that is not the key's.
pub fn under_other_kids(
    pen: &Pen,
    typ: &str,
    claims: &Value,
    others: &[&str],
) -> Vec<(String, String)> {
    let mut kids: Vec<String> = KIDS
        .iter()
        .map(|kid| kid.replace("KID", &pen.kid))
        .collect();
    kids.push(json!(bend(&pen.kid)).to_string());
    kids.push(json!(pen.kid.to_uppercase()).to_string());
    kids.push(json!("k".repeat(9000)).to_string());
    kids.extend(others.iter().map(|other| json!(other).to_string()));
    let alg = pen.public.algorithm();
    let sign = |header: String| pen.sign_bytes(&header, claims.to_string().as_bytes());
    let missing = sign(format!(r#"{{"alg":"{alg}","typ":"{typ}"}}"#));
    let mut forged = vec![("kid missing".to_owned(), missing)];
    for kid in kids {
        let token = sign(format!(r#"{{"alg":"{alg}","kid":{kid},"typ":"{typ}"}}"#));
        forged.push((format!("kid {kid:.60}"), token));
    }
    forged
}

/// The same bytes with spare bits set: the next letter, which no encoder writes in that place.
pub fn bend(text: &str) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = *text.as_bytes().last().unwrap();
    let at = alphabet.iter().position(|letter| *letter == last).unwrap();
    format!(
        "{}{}",
        &text[..text.len() - 1],
        char::from(alphabet[at + 1])
    )
}

/// An ECDSA signature as X.509 writes it.
fn der(raw: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let mut bytes: Vec<u8> = bytes.iter().copied().skip_while(|b| *b == 0).collect();
        if bytes.first().is_none_or(|b| b & 0x80 != 0) {
            bytes.insert(0, 0);
        }
        [&[2, bytes.len() as u8], bytes.as_slice()].concat()
    };
    let both = [integer(&raw[..32]), integer(&raw[32..])].concat();
    [&[0x30, both.len() as u8], both.as_slice()].concat()
}
