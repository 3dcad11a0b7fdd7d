// Does a client library that knows nothing of assent work with it, unmodified? openid-client runs every
// delivery mode and authentication method against a real server; `assent phone` gives the answers.
//
//   node run.mjs PROGRAM    PROGRAM is the assent to test; scripts/interop builds and names it
//
// One line per check; the exit status is 1 if any failed.

import assert from 'node:assert/strict';
import { createHash, randomBytes, webcrypto } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Endpoint, World } from './world.mjs';

// Node 18, which Debian 12 has, keeps these elsewhere.
globalThis.crypto ??= webcrypto;
globalThis.CryptoKey ??= webcrypto.CryptoKey;

const jose = await import('jose');
const oidc = await import('openid-client');

const LIMIT = 60_000; // ms for everything
const SCOPE = 'openid profile';
const CLAIM = 'urn:openid:params:jwt:claim';

let passed = 0;
let failed = 0;

/** One check; what `does` returns is for the checks after it. */
async function check(name, does, say = console.log) {
  try {
    const value = await does();
    passed += 1;
    say(`ok    ${name}`);
    return { good: true, value };
  } catch (error) {
    failed += 1;
    const cause = error.cause ? `\n${error.cause.stack ?? JSON.stringify(error.cause)}` : '';
    say(`FAIL  ${name}\n      ${`${error.stack ?? error}${cause}`.replaceAll('\n', '\n      ')}`);
    return { good: false };
  }
}

/**
 * Several checks that need each other's results; the first failure ends the flow, not the run. Flows run side
 * by side: most of their time is waiting. Each one's lines stay together.
 */
async function flow(name, does) {
  const lines = [];
  const say = (line) => lines.push(line);
  const failure = Symbol('a step failed, and was told');
  const step = async (what, act) => {
    const { good, value } = await check(`${name}: ${what}`, act, say);
    if (!good) throw failure;
    return value;
  };
  try {
    await does(step);
  } catch (error) {
    if (error !== failure) await check(`${name}: runs to its end`, () => Promise.reject(error), say);
  }
  console.log(lines.join('\n'));
}

/** What the library made of an error response. */
async function refusal(promise) {
  const error = await promise.then(
    () => assert.fail('an error response was expected'),
    (error) => error,
  );
  if (error instanceof oidc.WWWAuthenticateChallengeError) {
    return { status: error.status, error: error.cause[0].parameters.error, scheme: error.cause[0].scheme };
  }
  if (!(error instanceof oidc.ResponseBodyError)) throw error;
  assert.ok(error.error_description, 'there is a description');
  return { status: error.status, error: error.error };
}

const halfHash = (text) => createHash('sha256').update(text).digest().subarray(0, 16).toString('base64url');

const program = process.argv[2];
if (!program) {
  console.error('name the program to test: node run.mjs target/debug/assent');
  process.exit(2);
}
const world = new World(program);
const [keyHost, pinged, pushed, pushedToo] = [1, 2, 3, 4].map(() => new Endpoint());
const endpoints = [keyHost, pinged, pushed, pushedToo];

const late = setTimeout(() => {
  console.log(`FAIL  everything within ${LIMIT / 1000} s`);
  world.kill();
  process.exit(1);
}, LIMIT);
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    world.kill();
    process.exit(1);
  });
}

/** The library's configuration of a client: from discovery, verifying the signature of every ID Token. */
async function configured(id, authentication, algorithm) {
  const options = { execute: [oidc.allowInsecureRequests, oidc.enableNonRepudiationChecks] };
  const metadata = { id_token_signed_response_alg: algorithm };
  const config = await oidc.discovery(new URL(world.issuer), id, metadata, authentication, options);
  config.answers = [];
  config[oidc.customFetch] = async (url, init) => {
    const response = await fetch(url, init);
    const path = new URL(url).pathname;
    const type = response.headers.get('content-type') ?? '';
    const body = type.startsWith('application/json') ? await response.clone().json() : {};
    config.answers.push(`${path} ${response.status}${body.error ? ` ${body.error}` : ''}`);
    return response;
  };
  return config;
}

async function keyPair(algorithm, kid) {
  const { publicKey, privateKey } = await jose.generateKeyPair(algorithm, { extractable: true });
  const jwk = { ...(await jose.exportJWK(publicKey)), kid, alg: algorithm, use: 'sig' };
  return { jwk, authentication: () => oidc.PrivateKeyJwt({ key: privateKey, kid }) };
}

function ask(config, person, more = {}) {
  const parameters = { scope: SCOPE, login_hint: person.login, binding_message: 'W4SCT', ...more };
  return oidc.initiateBackchannelAuthentication(config, parameters);
}

function assertTokens(tokens, person, client) {
  assert.equal(tokens.token_type, 'bearer'); // the library lowers it
  assert.ok(tokens.access_token && tokens.refresh_token && tokens.expires_in > 0);
  const claims = tokens.claims();
  assert.equal(claims.sub, person.sub);
  assert.equal(claims.iss, world.issuer);
  assert.deepEqual([claims.aud].flat(), [client.id]);
  assert.ok(claims.auth_time <= claims.exp && claims.acr && claims.amr.length > 0);
  assert.equal(jose.decodeProtectedHeader(tokens.id_token).alg, client.algorithm);
}

/** Asks, lets the library poll, and answers once it has been told that nobody answered yet. */
async function pollFlow(name, client) {
  await flow(name, async (step) => {
    const config = await client.configure();
    const person = await world.person();
    const asked = await step('the request is acknowledged', async () => {
      const asked = await ask(config, person);
      assert.ok(asked.auth_req_id.length >= 22 && asked.expires_in === 120 && asked.interval === 1);
      return asked;
    });
    const tokens = await step('the library polls until the phone approves', async () => {
      config.answers.length = 0;
      const polling = oidc.pollBackchannelAuthenticationGrant(config, asked);
      polling.catch(() => {}); // it is awaited below
      while (config.answers.length === 0) await sleep(20);
      await person.approve();
      const tokens = await polling;
      assert.equal(config.answers[0], '/token 400 authorization_pending');
      assert.ok(!config.answers.some((answer) => answer.includes('slow_down')), `${config.answers}`);
      assert.ok(config.answers.includes('/token 200'), `${config.answers}`);
      assert.ok(config.answers.includes('/jwks 200'), 'the library fetched the keys and verified the ID Token');
      return tokens;
    });
    await step('the ID Token is about this person and for this client', () => assertTokens(tokens, person, client));
    await step('an auth_req_id is good once', async () => {
      const again = oidc.pollBackchannelAuthenticationGrant(config, asked);
      assert.deepEqual(await refusal(again), { status: 400, error: 'invalid_grant' });
    });
  });
}

async function denialFlow(client) {
  await flow('denial', async (step) => {
    const config = await client.configure();
    const person = await world.person();
    const asked = await ask(config, person);
    await step('the phone shows the binding message and says no', async () => {
      const [shown] = await person.list();
      assert.ok(shown.display.lines.some((line) => line.text === 'W4SCT'), JSON.stringify(shown));
      await person.deny();
    });
    await step('the library learns access_denied', async () => {
      const polling = oidc.pollBackchannelAuthenticationGrant(config, asked);
      assert.deepEqual(await refusal(polling), { status: 400, error: 'access_denied' });
    });
  });
}

/** What becomes of tokens after they were issued. */
async function tokenFlow(name, client) {
  await flow(name, async (step) => {
    const config = await client.configure();
    const person = await world.person();
    const asked = await ask(config, person);
    await person.approve();
    const tokens = await oidc.pollBackchannelAuthenticationGrant(config, asked);

    await step('userinfo', async () => {
      const info = await oidc.fetchUserInfo(config, tokens.access_token, tokens.claims().sub);
      assert.equal(info.sub, person.sub);
      assert.equal(info.preferred_username, person.login);
      assert.ok(info.name.startsWith('Person '));
    });
    await step('introspection of the access token', async () => {
      const seen = await oidc.tokenIntrospection(config, tokens.access_token);
      assert.deepEqual(
        [seen.active, seen.client_id, seen.sub, seen.scope, seen.iss],
        [true, client.id, person.sub, SCOPE, world.issuer],
      );
    });
    await step('introspection of the refresh token', async () => {
      const hint = { token_type_hint: 'refresh_token' };
      assert.equal((await oidc.tokenIntrospection(config, tokens.refresh_token, hint)).active, true);
    });
    await step('introspection of nonsense says inactive and nothing else', async () => {
      assert.deepEqual({ ...(await oidc.tokenIntrospection(config, 'nonsense')) }, { active: false });
    });
    const refreshed = await step('refresh', async () => {
      const refreshed = await oidc.refreshTokenGrant(config, tokens.refresh_token);
      assert.notEqual(refreshed.refresh_token, tokens.refresh_token);
      assert.notEqual(refreshed.access_token, tokens.access_token);
      const claims = refreshed.claims();
      if (claims) {
        // OpenID Connect Core 12.2
        const before = tokens.claims();
        assert.deepEqual(
          [claims.iss, claims.sub, claims.aud, claims.auth_time],
          [before.iss, before.sub, before.aud, before.auth_time],
        );
      }
      return refreshed;
    });
    await step('refresh of nonsense is invalid_grant', async () => {
      const answer = await refusal(oidc.refreshTokenGrant(config, 'nonsense'));
      assert.deepEqual(answer, { status: 400, error: 'invalid_grant' });
    });
    await step('refresh for more than was granted is invalid_scope', async () => {
      const more = oidc.refreshTokenGrant(config, refreshed.refresh_token, { scope: 'openid email' });
      assert.deepEqual(await refusal(more), { status: 400, error: 'invalid_scope' });
    });
    await step('an ID Token as id_token_hint names the person', async () => {
      const parameters = { scope: 'openid', id_token_hint: tokens.id_token };
      const again = await oidc.initiateBackchannelAuthentication(config, parameters);
      await person.approve();
      const more = await oidc.pollBackchannelAuthenticationGrant(config, again);
      assert.equal(more.claims().sub, person.sub);
    });
    await step('a revoked access token opens nothing', async () => {
      await oidc.tokenRevocation(config, refreshed.access_token);
      const seen = await oidc.tokenIntrospection(config, refreshed.access_token);
      assert.deepEqual({ ...seen }, { active: false });
      const answer = await refusal(oidc.fetchUserInfo(config, refreshed.access_token, person.sub));
      assert.deepEqual(answer, { status: 401, error: 'invalid_token', scheme: 'bearer' });
    });
    await step('a revoked refresh token is no grant', async () => {
      await oidc.tokenRevocation(config, refreshed.refresh_token, { token_type_hint: 'refresh_token' });
      const answer = await refusal(oidc.refreshTokenGrant(config, refreshed.refresh_token));
      assert.deepEqual(answer, { status: 400, error: 'invalid_grant' });
    });
    await step('revoking what is no token is no error', () => oidc.tokenRevocation(config, 'nonsense'));
  });
}

/** Asks, lets the phone answer, and takes the notification. */
async function notified(endpoint, config, person, answer) {
  const token = randomBytes(24).toString('base64url');
  const asked = await ask(config, person, { client_notification_token: token });
  assert.equal(endpoint.unread, 0, 'nothing is told before the person answered');
  await answer();
  const told = await endpoint.next();
  assert.deepEqual([told.method, told.url], ['POST', '/notify']);
  assert.equal(told.headers.authorization, `Bearer ${token}`);
  assert.match(told.headers['content-type'], /^application\/json/);
  return { asked, body: JSON.parse(told.body) };
}

async function pingFlow(client, endpoint) {
  await flow('ping', async (step) => {
    const config = await client.configure();
    const person = await world.person();
    const asked = await step('the endpoint is told the auth_req_id and nothing else', async () => {
      const { asked, body } = await notified(endpoint, config, person, person.approve);
      assert.deepEqual(body, { auth_req_id: asked.auth_req_id });
      return asked;
    });
    await step('the library fetches the tokens', async () => {
      // Who was pinged does not wait for the interval (CIBA Core 10.2).
      const tokens = await oidc.pollBackchannelAuthenticationGrant(config, { ...asked, interval: 0 });
      assertTokens(tokens, person, client);
    });
    await step('a denial is told too', async () => {
      const { asked, body } = await notified(endpoint, config, person, person.deny);
      assert.deepEqual(body, { auth_req_id: asked.auth_req_id });
      const fetched = oidc.pollBackchannelAuthenticationGrant(config, { ...asked, interval: 0 });
      assert.deepEqual(await refusal(fetched), { status: 400, error: 'access_denied' });
    });
    await step('without a notification token nothing begins', async () => {
      assert.deepEqual(await refusal(ask(config, person)), { status: 400, error: 'invalid_request' });
    });
  });
}

async function pushFlow(name, client, endpoint) {
  await flow(name, async (step) => {
    const config = await client.configure();
    const person = await world.person();
    const { asked, body } = await step('the endpoint is sent the tokens', async () => {
      const told = await notified(endpoint, config, person, person.approve);
      const members = ['access_token', 'auth_req_id', 'expires_in', 'id_token', 'refresh_token', 'token_type'];
      assert.deepEqual(Object.keys(told.body).sort(), members);
      assert.equal(told.body.auth_req_id, told.asked.auth_req_id);
      assert.equal(told.body.token_type, 'Bearer');
      return told;
    });
    await step('the ID Token verifies and binds all of it together', async () => {
      const keys = jose.createRemoteJWKSet(new URL(config.serverMetadata().jwks_uri));
      const expected = { issuer: world.issuer, audience: client.id, requiredClaims: ['iat', 'exp', 'sub'] };
      const { payload, protectedHeader } = await jose.jwtVerify(body.id_token, keys, expected);
      assert.equal(protectedHeader.alg, client.algorithm);
      assert.equal(payload.sub, person.sub);
      assert.equal(payload.at_hash, halfHash(body.access_token));
      assert.equal(payload[`${CLAIM}:rt_hash`], halfHash(body.refresh_token));
      assert.equal(payload[`${CLAIM}:auth_req_id`], asked.auth_req_id);
    });
    await step('the pushed tokens are good', async () => {
      assert.equal((await oidc.fetchUserInfo(config, body.access_token, person.sub)).sub, person.sub);
      assert.ok((await oidc.refreshTokenGrant(config, body.refresh_token)).access_token);
    });
    await step('the token endpoint is not for push', async () => {
      const fetched = oidc.pollBackchannelAuthenticationGrant(config, { ...asked, interval: 0 });
      assert.deepEqual(await refusal(fetched), { status: 400, error: 'unauthorized_client' });
    });
    await step('a denial is pushed as an error', async () => {
      const { asked, body } = await notified(endpoint, config, person, person.deny);
      const { error_description: description, ...rest } = body;
      assert.deepEqual(rest, { auth_req_id: asked.auth_req_id, error: 'access_denied' });
      assert.ok(description);
    });
  });
}

async function serviceFlow(client) {
  await flow('client_credentials', async (step) => {
    const config = await client.configure();
    const tokens = await step('a service gets a token for itself', async () => {
      const tokens = await oidc.clientCredentialsGrant(config, { scope: 'accounts' });
      assert.ok(tokens.access_token && !tokens.refresh_token && !tokens.id_token);
      return tokens;
    });
    await step('it is about the service', async () => {
      const seen = await oidc.tokenIntrospection(config, tokens.access_token);
      assert.deepEqual([seen.active, seen.sub, seen.scope], [true, client.id, 'accounts']);
    });
    await step('it is no person: userinfo refuses', async () => {
      const answer = await refusal(oidc.fetchUserInfo(config, tokens.access_token, client.id));
      assert.equal(answer.status, 403);
      assert.equal(answer.error, 'insufficient_scope');
    });
    await step('it may not ask a person', async () => {
      const person = await world.person();
      const asked = ask(config, person, { scope: 'openid' });
      assert.deepEqual(await refusal(asked), { status: 400, error: 'unauthorized_client' });
    });
  });
}

async function refusalFlow(client) {
  await flow('refused', async (step) => {
    const config = await client.configure();
    const nobody = { login: 'nobody' };
    await step('a wrong secret is invalid_client with a challenge', async () => {
      const wrong = await configured(client.id, oidc.ClientSecretBasic('wrong'));
      const answer = await refusal(ask(wrong, nobody));
      assert.equal(answer.status, 401);
      assert.equal(answer.scheme, 'basic');
    });
    await step('the right secret by the wrong method is invalid_client', async () => {
      const other = await configured(client.id, oidc.ClientSecretPost(client.secret));
      assert.deepEqual(await refusal(ask(other, nobody)), { status: 401, error: 'invalid_client' });
    });
    await step('nobody is unknown_user_id', async () => {
      assert.deepEqual(await refusal(ask(config, nobody)), { status: 400, error: 'unknown_user_id' });
    });
    await step('a scope it does not have is invalid_scope', async () => {
      const asked = ask(config, nobody, { scope: 'openid email' });
      assert.deepEqual(await refusal(asked), { status: 400, error: 'invalid_scope' });
    });
    await step('a request object is refused, as the metadata says', async () => {
      const asked = ask(config, nobody, { request: 'eyJhbGciOiJub25lIn0.e30.' });
      assert.deepEqual(await refusal(asked), { status: 400, error: 'invalid_request' });
    });
    await step('another grant is unsupported_grant_type', async () => {
      const grant = oidc.genericGrantRequest(config, 'password', { username: 'a', password: 'b' });
      assert.deepEqual(await refusal(grant), { status: 400, error: 'unsupported_grant_type' });
    });
  });
}

async function discoveryFlow() {
  await flow('discovery', async (step) => {
    for (const algorithm of ['oidc', 'oauth2']) {
      await step(`${algorithm}: the metadata names all that the library needs`, async () => {
        const options = { algorithm, execute: [oidc.allowInsecureRequests] };
        const config = await oidc.discovery(new URL(world.issuer), 'basic', {}, oidc.None(), options);
        const metadata = config.serverMetadata();
        assert.equal(metadata.issuer, world.issuer);
        assert.deepEqual([...metadata.backchannel_token_delivery_modes_supported].sort(), ['ping', 'poll', 'push']);
        assert.ok(metadata.grant_types_supported.includes('urn:openid:params:grant-type:ciba'));
        for (const what of ['token', 'backchannel_authentication', 'introspection', 'revocation', 'userinfo']) {
          assert.ok(metadata[`${what}_endpoint`].startsWith(world.issuer), what);
        }
      });
    }
  });
}

try {
  await world.start();
  await Promise.all(endpoints.map((endpoint) => endpoint.start()));

  await Promise.all(['PS256', 'EdDSA'].map((algorithm) => world.signsTokens(algorithm)));

  const es256 = await keyPair('ES256', 'es');
  const ps256 = await keyPair('PS256', 'ps');
  const eddsa = await keyPair('EdDSA', 'ed');
  const jwks = join(world.folder, 'jwks.json');
  writeFileSync(jwks, JSON.stringify({ keys: [es256.jwk, eddsa.jwk] }));
  keyHost.jwks = { keys: [ps256.jwk] };
  const people = ['--grant', 'urn:openid:params:grant-type:ciba', '--grant', 'refresh_token'];
  const by = (method) => [...people, '--auth-method', method];
  const told = (mode, endpoint) => [...people, '--mode', mode, '--notification-endpoint', endpoint.notifyUrl];
  /** A registered client; each flow makes a configuration of its own. */
  const registered = async (id, authentication, ...options) => {
    const secret = await world.client(id, ...options);
    const at = options.indexOf('--token-alg');
    const algorithm = at < 0 ? 'ES256' : options[at + 1];
    return { id, secret, algorithm, configure: () => configured(id, authentication(secret), algorithm) };
  };
  const { ClientSecretBasic: secretBasic, ClientSecretPost: secretPost } = oidc;

  const basic = await registered('basic', secretBasic, ...by('client_secret_basic'));
  const post = await registered('post', secretPost, ...by('client_secret_post'));
  const inline = await registered('inline', es256.authentication, ...by('private_key_jwt'), '--jwks', jwks);
  const uri = ['--auth-alg', 'PS256', '--jwks-uri', keyHost.jwksUrl];
  const fetched = await registered('fetched', ps256.authentication, ...by('private_key_jwt'), ...uri);
  const edwards = ['--jwks', jwks, '--auth-alg', 'EdDSA', '--token-alg', 'EdDSA'];
  const edward = await registered('edward', eddsa.authentication, ...by('private_key_jwt'), ...edwards);
  const pss = await registered('pss', ps256.authentication, ...by('private_key_jwt'), ...uri, '--token-alg', 'PS256');
  const ping = await registered('ping', secretBasic, ...told('ping', pinged));
  const push = await registered('push', secretBasic, ...told('push', pushed));
  const pushPs256 = [...told('push', pushedToo), '--token-alg', 'PS256'];
  const pushPss = await registered('push-pss', secretBasic, ...pushPs256);
  const opaque = await registered('opaque', secretBasic, ...people, '--token-format', 'opaque');
  const alone = ['--grant', 'client_credentials', '--scope', 'accounts'];
  const service = await registered('service', secretBasic, ...alone);

  await Promise.all([
    discoveryFlow(),
    pollFlow('poll, client_secret_basic', basic),
    pollFlow('poll, client_secret_post', post),
    pollFlow('poll, private_key_jwt ES256 jwks', inline),
    pollFlow('poll, private_key_jwt PS256 jwks_uri', fetched),
    pollFlow('poll, private_key_jwt PS256, tokens PS256', pss),
    pollFlow('poll, private_key_jwt EdDSA, tokens EdDSA', edward),
    denialFlow(basic),
    pingFlow(ping, pinged),
    pushFlow('push', push, pushed),
    pushFlow('push, tokens PS256', pushPss, pushedToo),
    tokenFlow('tokens, jwt', basic),
    tokenFlow('tokens, PS256', pss),
    tokenFlow('tokens, opaque', opaque),
    tokenFlow('tokens, private_key_jwt', inline),
    serviceFlow(service),
    refusalFlow(basic),
  ]);
  // Once for each of the two clients whose keys are there.
  await check('jwks_uri: fetched once, then cached', () => assert.equal(keyHost.fetched, 2));
} catch (error) {
  await check('the run comes to its end', () => Promise.reject(error));
} finally {
  if (failed > 0) console.log(`the end of the server's log:\n${world.logText()}`);
  for (const endpoint of endpoints) endpoint.stop();
  await world.stop();
  clearTimeout(late);
}
console.log(`interop: ${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
