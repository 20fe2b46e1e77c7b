// Hooks, with real processes and a real web server: what they are told, in which order, and that whatever they do (hang,
// fail, fork, answer nonsense, not exist) is an outcome and never an exception.

import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { firstValueFrom, ReplaySubject, Subject } from 'rxjs';
import type { HookEvent, HookOutcome } from '../../src/observe/hooks/events.js';
import { type HookRunner, startHooks } from '../../src/observe/hooks/hooks.js';
import type { HooksConfig, WebhookConfig } from '../../src/config/sections.js';
import { captureLog } from '../support/capture.js';
import { isAlive } from '../support/processes.js';

const event: HookEvent = {
  event: 'failover-completed',
  domain: 'web',
  streamUuid: 'f81d4fae-7dec-11d0-a765-00a0c91e6bf6',
  epoch: 7,
  reason: 'HEARTBEAT_TIMEOUT',
  time: '2026-01-01T00:00:00.000Z',
  takeoverSeconds: 0.01,
};

describe('hooks', () => {
  let directory: string;
  let events$: Subject<HookEvent>;
  let captured: ReturnType<typeof captureLog>;
  let outcomes: HookOutcome[];
  let runner: HookRunner | null;

  beforeEach(async () => {
    directory = await mkdtemp(path.join(os.tmpdir(), 'romulus-hooks-'));
    events$ = new Subject();
    captured = captureLog();
    outcomes = [];
    runner = null;
  });
  afterEach(async () => {
    await runner?.stop();
    await rm(directory, { recursive: true });
  });

  function start(config: Partial<HooksConfig>): HookRunner {
    runner = startHooks({ commandTimeoutMs: 10_000, ...config }, events$, captured.log);
    runner.outcomes$.subscribe((outcome) => outcomes.push(outcome));
    return runner;
  }
  const shell = (script: string): string[] => ['/bin/sh', '-c', script];
  const file = (name: string) => path.join(directory, name);
  describe('command', () => {
    it('gets the event in its environment and on its standard input', async () => {
      const hooks = start({ command: shell(`env > '${file('env')}'; cat > '${file('input')}'; echo gone`) });
      events$.next(event);
      await hooks.settled();
      expect(outcomes.map(({ result }) => result)).to.deep.equal(['success']);
      expect(outcomes[0]).to.include({ hook: 'command', event: 'failover-completed', domain: 'web' });
      const environment = (await readFile(file('env'), 'utf8')).split('\n');
      expect(environment).to.include.members([
        'ROMULUS_EVENT=failover-completed',
        'ROMULUS_DOMAIN=web',
        'ROMULUS_STREAM_UUID=f81d4fae-7dec-11d0-a765-00a0c91e6bf6',
        'ROMULUS_EPOCH=7',
        'ROMULUS_REASON=HEARTBEAT_TIMEOUT',
        'ROMULUS_TIME=2026-01-01T00:00:00.000Z',
        'ROMULUS_TAKEOVER_SECONDS=0.01',
        'ROMULUS_ERROR=',
      ]);
      const { id, ...told } = JSON.parse(await readFile(file('input'), 'utf8')) as HookEvent & { id: string };
      expect(told).to.deep.equal(event);
      expect(id).to.match(/^[0-9a-f-]{36}$/);
    });

    it('that fails is logged with exit code and last words', async () => {
      const hooks = start({ command: shell('yes noise | head -c 100000 >&2; echo "no route" >&2; exit 3') });
      events$.next(event);
      await hooks.settled();
      expect(outcomes[0]?.result).to.equal('failure');
      expect(outcomes[0]?.details['exitCode']).to.equal(3);
      const words = String(outcomes[0]?.details['standardError']);
      expect(words).to.match(/no route$/);
      expect(words.length).to.be.at.most(4096);
      expect(captured.lines().at(-1)).to.include({
        level: 'error',
        domain: 'web',
        result: 'failure',
        exitCode: 3,
      });
    });

    it('that hangs is killed with its children', async () => {
      const hooks = start({
        command: shell(`trap '' TERM; sleep 1000 & echo $! > '${file('pid')}'; wait; wait`),
        commandTimeoutMs: 400,
      });
      events$.next(event);
      await hooks.settled();
      expect(outcomes[0]?.result).to.equal('timeout');
      expect(outcomes[0]?.seconds).to.be.within(0.3, 5);
      const child = Number(await readFile(file('pid'), 'utf8'));
      expect(child).to.be.greaterThan(1);
      for (let n = 0; isAlive(child) && n < 200; n++) await new Promise((resolve) => setTimeout(resolve, 10));
      expect(isAlive(child)).to.equal(false);
    });

    it('that leaves a child behind with its standard error does not hold up the next', async () => {
      const hooks = start({ command: shell(`sleep 1000 & echo $! > '${file('pid')}'`) });
      events$.next(event);
      await hooks.settled();
      expect(outcomes[0]?.result).to.equal('success');
      expect(outcomes[0]?.seconds).to.be.lessThan(5);
      process.kill(Number(await readFile(file('pid'), 'utf8')), 'SIGKILL');
    });

    it('that does not exist, may not be run, or is no text, is a failure', async () => {
      for (const command of [['/nonexistent/hook'], [directory], ['a\0b']]) {
        const hooks = start({ command });
        events$.next(event);
        await hooks.settled();
        await hooks.stop();
      }
      expect(outcomes.map(({ result }) => result)).to.deep.equal(['failure', 'failure', 'failure']);
      expect(outcomes.map(({ details }) => details['error'])).to.deep.equal([
        'ENOENT',
        'EACCES',
        'ERR_INVALID_ARG_VALUE',
      ]);
    });

    it('that ignores a large input is a success', async () => {
      const hooks = start({ command: ['true'] });
      events$.next({ ...event, reason: 'x'.repeat(100_000) });
      await hooks.settled();
      expect(outcomes[0]?.result).to.equal('success');
    });

    it('runs once at a time for a domain, in order, and side by side for two', async () => {
      const script = `echo "$ROMULUS_DOMAIN $ROMULUS_EVENT begin" >> '${file('order')}'
        while [ "$ROMULUS_DOMAIN" = web ] && [ ! -e '${file('go')}' ]; do sleep 0.02; done
        if [ "$ROMULUS_DOMAIN" = mail ]; then touch '${file('go')}'; fi
        echo "$ROMULUS_DOMAIN $ROMULUS_EVENT end" >> '${file('order')}'`;
      const hooks = start({ command: shell(script) });
      // web's command waits for mail's: it would hang if one waited for the other.
      events$.next({ ...event, event: 'failover-started' });
      events$.next(event);
      events$.next({ ...event, domain: 'mail' });
      await hooks.settled();
      const lines = (await readFile(file('order'), 'utf8')).trimEnd().split('\n');
      expect(lines.filter((line) => line.startsWith('web'))).to.deep.equal([
        'web failover-started begin',
        'web failover-started end',
        'web failover-completed begin',
        'web failover-completed end',
      ]);
      expect(outcomes.map(({ result }) => result)).to.deep.equal(['success', 'success', 'success']);
    });

    it('is killed when the service stops, and what waits is cancelled', async () => {
      const hooks = start({ command: shell(`echo $$ > '${file('pid')}'; sleep 1000`) });
      for (let n = 0; n < 40; n++) events$.next(event);
      expect(outcomes.map(({ result }) => result)).to.deep.equal(
        Array.from({ length: 8 }, () => 'cancelled'),
      );
      let pid = 0;
      while (pid === 0) {
        pid = Number(await readFile(file('pid'), 'utf8').catch(() => '0'));
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      await Promise.all([hooks.stop(), hooks.stop()]);
      expect(outcomes).to.have.length(40);
      expect(outcomes.every(({ result }) => result === 'cancelled')).to.equal(true);
      expect(isAlive(pid)).to.equal(false);
      expect(events$.observed).to.equal(false);
    });
  });

  describe('webhook', () => {
    let server: http.Server;
    let requests: { headers: http.IncomingHttpHeaders; body: string; method: string | undefined }[];
    let replies: ((response: http.ServerResponse) => void)[];
    let arrived: ReplaySubject<number>;

    beforeEach(async () => {
      requests = [];
      replies = [];
      arrived = new ReplaySubject(1);
      server = http.createServer((request, response) => {
        let body = '';
        request.on('data', (chunk: Buffer) => (body += chunk.toString()));
        request.on('end', () => {
          requests.push({ headers: request.headers, body, method: request.method });
          arrived.next(requests.length);
          const reply = replies.shift() ?? ((last) => last.writeHead(204).end());
          reply(response);
        });
      });
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
    });
    afterEach(async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    });

    const answer = (code: number) => (response: http.ServerResponse) =>
      void response.writeHead(code).end('body');
    const mute = () => undefined;
    function webhook(changes: Partial<WebhookConfig> = {}): WebhookConfig {
      const { port } = server.address() as AddressInfo;
      return {
        url: `http://127.0.0.1:${port}/hook`,
        attempts: 5,
        timeoutMs: 5000,
        retryDelayMs: 5,
        ...changes,
      };
    }

    it('gets the event as JSON', async () => {
      const hooks = start({ webhook: webhook() });
      events$.next(event);
      await hooks.settled();
      expect(outcomes[0]).to.include({ hook: 'webhook', result: 'success' });
      expect(outcomes[0]?.details).to.deep.equal({ status: 204, attempts: 1 });
      expect(requests[0]?.method).to.equal('POST');
      expect(requests[0]?.headers['content-type']).to.equal('application/json');
      expect(JSON.parse(requests[0]?.body ?? '')).to.deep.include(event);
    });

    it('is tried again after 5xx, 408, 429, a cut connection and silence, under one id', async () => {
      replies = [answer(500), answer(408), answer(429), (response) => response.destroy(), mute];
      const hooks = start({ webhook: webhook({ attempts: 6, timeoutMs: 200 }) });
      events$.next(event);
      await hooks.settled();
      expect(outcomes[0]).to.include({ result: 'success' });
      expect(outcomes[0]?.details).to.deep.equal({ status: 204, attempts: 6 });
      expect(new Set(requests.map(({ body }) => body)).size).to.equal(1);
      const delays = captured
        .lines()
        .filter((line) => line['level'] === 'warn')
        .map((line) => line['delayMs']);
      expect(delays).to.deep.equal([5, 10, 20, 40, 80]);
    });

    it('is given up after the last attempt', async () => {
      replies = [answer(503), answer(503), answer(503)];
      const hooks = start({ webhook: webhook({ attempts: 3 }) });
      events$.next(event);
      await hooks.settled();
      expect(outcomes[0]).to.include({ result: 'failure' });
      expect(outcomes[0]?.details).to.deep.equal({ status: 503, attempts: 3 });
      expect(requests).to.have.length(3);
    });

    it('is not repeated after an answer that will not change, nor redirected', async () => {
      replies = [answer(404), (response) => response.writeHead(302, { location: '/other' }).end()];
      const hooks = start({ webhook: webhook() });
      events$.next(event);
      events$.next(event);
      await hooks.settled();
      expect(outcomes.map(({ result, details }) => [result, details['status']])).to.deep.equal([
        ['failure', 404],
        ['failure', 302],
      ]);
      expect(requests).to.have.length(2);
    });

    it('does not wait for a body that never ends', async () => {
      replies = [(response) => void response.writeHead(200).write('a')];
      const hooks = start({ webhook: webhook() });
      events$.next(event);
      await hooks.settled();
      expect(outcomes[0]).to.include({ result: 'success' });
    });

    it('that nobody serves is a failure, that never answers a timeout', async () => {
      const silent = start({ webhook: webhook({ timeoutMs: 100, attempts: 1 }) });
      replies = [mute];
      events$.next(event);
      await silent.settled();
      await silent.stop();
      const closed = http.createServer().listen(0, '127.0.0.1');
      await once(closed, 'listening');
      const { port } = closed.address() as AddressInfo;
      closed.close();
      await once(closed, 'close');
      const nobody = start({ webhook: webhook({ url: `http://127.0.0.1:${port}/`, attempts: 2 }) });
      events$.next(event);
      await nobody.settled();
      expect(outcomes.map(({ result }) => result)).to.deep.equal(['timeout', 'failure']);
      expect(outcomes[1]?.details).to.include({ error: 'ECONNREFUSED', attempts: 2 });
    });

    it('is aborted when the service stops, in a request and between two', async () => {
      replies = [mute];
      const inRequest = start({ webhook: webhook({ timeoutMs: 60_000 }) });
      events$.next(event);
      await firstValueFrom(arrived);
      await inRequest.stop();
      replies = [answer(500)];
      const between = start({ webhook: webhook({ retryDelayMs: 60_000 }) });
      events$.next(event);
      while (!captured.lines().some((line) => line['delayMs'] === 60_000)) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      await between.stop();
      expect(outcomes.map(({ result }) => result)).to.deep.equal(['cancelled', 'cancelled']);
    });
  });

  it('runs command and webhook for one event, and neither where none is configured', async () => {
    const both = start({
      command: ['true'],
      webhook: { url: 'http://127.0.0.1:1/', attempts: 1, timeoutMs: 1000, retryDelayMs: 1 },
    });
    events$.next(event);
    await both.settled();
    expect(outcomes.map(({ hook, result }) => `${hook} ${result}`).sort()).to.deep.equal([
      'command success',
      'webhook failure',
    ]);
    await both.stop();
    const none = start({});
    events$.next(event);
    await none.settled();
    expect(outcomes).to.have.length(2);
  });
});
