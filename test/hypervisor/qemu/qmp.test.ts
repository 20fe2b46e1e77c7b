// The monitor client against a monitor that we play ourselves, over real sockets: the parser for any cutting of the
// stream, answers in any order, errors, silence, and every way in which the connection can end.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, connect, type Server, type Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import fc from 'fast-check';
import { HypervisorError } from '../../../src/hypervisor/port.js';
import { QmpParser, type QmpMessage } from '../../../src/hypervisor/qemu/monitor/qmp-parser.js';
import { QmpClient, QmpError, type QmpEvent } from '../../../src/hypervisor/qemu/monitor/qmp.js';
import { expectCode } from '../support.js';

const GREETING = {
  QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 }, package: 'Debian' }, capabilities: ['oob'] },
};

describe('qemu: the monitor’s parser', () => {
  const lines = [
    JSON.stringify(GREETING),
    '{"return": {}, "id": 3}\r',
    '',
    '{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}',
    '{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}',
    '{"id": 4, "error": {"class": "GenericError", "desc": "kein Gerät"}}',
    '{"error": {"class": "GenericError", "desc": "JSON parse error"}}',
  ];
  const expected: QmpMessage[] = [
    { kind: 'greeting', version: { major: 7, minor: 2, micro: 22, package: 'Debian' } },
    { kind: 'result', id: 3, value: {} },
    { kind: 'event', name: 'STOP', data: {} },
    { kind: 'event', name: 'SHUTDOWN', data: { guest: true, reason: 'guest-shutdown' } },
    { kind: 'error', id: 4, errorClass: 'GenericError', description: 'kein Gerät' },
    { kind: 'error', id: null, errorClass: 'GenericError', description: 'JSON parse error' },
  ];
  const octets = Buffer.from(`${lines.join('\n')}\n`);

  it('gives the same messages however the stream is cut', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(octets.length)), (cuts) => {
        const parser = new QmpParser();
        const places = [0, ...cuts.sort((a, b) => a - b), octets.length];
        const chunk = Buffer.alloc(octets.length); // reused, as a socket's may be
        const messages = places.slice(1).flatMap((end, index) => {
          const start = places[index] ?? 0;
          octets.copy(chunk, 0, start, end);
          return parser.push(chunk.subarray(0, end - start));
        });
        expect(messages).to.deep.equal(expected);
      }),
    );
  });

  it('takes anything, and fails with a typed error or gives messages', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.json(), fc.string()), { maxLength: 5 }), (texts) => {
        const parser = new QmpParser();
        try {
          for (const text of texts) parser.push(Buffer.from(`${text}\n`));
        } catch (error) {
          if (!(error instanceof HypervisorError)) throw error;
          expect(error.code).to.equal('FAILED');
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('holds a line no longer than the limit', () => {
    const parser = new QmpParser(100);
    parser.push(Buffer.alloc(60, 0x20));
    expect(() => parser.push(Buffer.alloc(41, 0x20))).to.throw(HypervisorError, 'too long');
    expect(() => new QmpParser(100).push(Buffer.alloc(101, 0x20))).to.throw(HypervisorError, 'too long');
  });
});

describe('qemu: the monitor’s client', () => {
  let server: Server;
  let monitor: Socket;
  const received: { execute: string; id: number; arguments?: unknown }[] = [];
  let chunks = 0;
  let answer: (command: { execute: string; id: number }) => void;

  const say = (...messages: unknown[]): void => {
    monitor.write(messages.map((message) => `${JSON.stringify(message)}\r\n`).join(''));
  };
  const open = async (options: { timeoutMs?: number; silent?: boolean } = {}): Promise<QmpClient> => {
    const { port } = server.address() as { port: number };
    const socket = connect(port, '127.0.0.1');
    [monitor] = (await once(server, 'connection')) as [Socket];
    monitor.on('error', () => undefined);
    let rest = '';
    monitor.on('data', (chunk: Buffer) => {
      chunks++;
      const all = (rest + chunk.toString()).split('\n');
      rest = all.pop() ?? '';
      for (const line of all) {
        const command = JSON.parse(line) as { execute: string; id: number };
        received.push(command);
        if (command.execute === 'qmp_capabilities') say({ return: {}, id: command.id });
        else answer(command);
      }
    });
    if (options.silent !== true) say(GREETING);
    return QmpClient.open(socket, options.timeoutMs);
  };

  beforeEach(async () => {
    received.length = 0;
    answer = () => undefined;
    server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
  });
  afterEach(async () => {
    monitor.destroy();
    server.close();
    await once(server, 'close');
  });

  it('greets, and gives several commands in one write', async () => {
    answer = ({ execute, id }) => say({ return: execute, id });
    const client = await open();
    expect(client.version).to.deep.equal({ major: 7, minor: 2, micro: 22, package: 'Debian' });
    chunks = 0;
    const answers = client.executeAll([['stop'], ['xen-save-devices-state', { filename: 'f', live: false }]]);
    expect(await Promise.all(answers)).to.deep.equal(['stop', 'xen-save-devices-state']);
    expect(chunks).to.equal(1);
    expect(received.at(-1)).to.deep.include({ arguments: { filename: 'f', live: false } });
    client.close();
  });

  it('knows the answers by their ids, and events from them', async () => {
    const asked: { execute: string; id: number }[] = [];
    answer = (command) => asked.push(command);
    const client = await open();
    const events: QmpEvent[] = [];
    client.events$.subscribe((event) => events.push(event));
    const [first, second] = client.executeAll([['a'], ['b']]);
    while (asked.length < 2) await sleep(1);
    for (const { execute, id } of asked.reverse()) say({ event: `DONE_${execute}` }, { return: execute, id });
    expect(await Promise.all([first, second])).to.deep.equal(['a', 'b']);
    expect(events.map(({ name }) => name)).to.deep.equal(['DONE_b', 'DONE_a']);
    client.close();
  });

  it('tells what QEMU refused, and why', async () => {
    answer = ({ execute, id }) =>
      say({
        id,
        error: { class: execute === 'x' ? 'CommandNotFound' : 'GenericError', desc: 'no such thing' },
      });
    const client = await open();
    const error = await expectCode(client.execute('y'), 'FAILED', 'no such thing');
    expect(error).to.be.instanceOf(QmpError);
    expect(error.facts).to.deep.equal({ command: 'y', class: 'GenericError', description: 'no such thing' });
    await expectCode(client.execute('x'), 'UNSUPPORTED');
    client.close();
  });

  it('waits no longer than it said, and ignores the answer that comes then', async () => {
    const client = await open({ timeoutMs: 30 });
    const error = await expectCode(client.execute('slow'), 'FAILED', 'in time');
    expect(error.facts).to.deep.equal({ command: 'slow', timeoutMs: 30 });
    say({ return: {}, id: received.at(-1)?.id });
    answer = ({ id }) => say({ return: 'fine', id });
    expect(await client.execute('next')).to.equal('fine');
    client.close();
    await expectCode(open({ timeoutMs: 30, silent: true }), 'FAILED', 'greet');
  });

  it('does not take its own standstill for QEMU’s silence', async () => {
    const client = await open({ timeoutMs: 50 });
    const answered = client.execute('slow');
    const until = performance.now() + 700;
    while (performance.now() < until); // as if we were stopped
    answer = ({ id }) => setTimeout(() => say({ return: 'fine', id }), 20);
    expect(await answered).to.equal('fine');
    client.close();
  });

  const endings: Record<string, [string, () => void]> = {
    'closed by QEMU': ['DOMAIN_GONE', () => monitor.end()],
    reset: ['DOMAIN_GONE', () => monitor.resetAndDestroy()],
    nonsense: ['FAILED', () => monitor.write('MZ\u0000\u0001 nonsense\n')],
    'an answer to nothing': ['FAILED', () => say({ return: {}, id: 99_999 })],
    'an error about nothing': [
      'FAILED',
      () => say({ error: { class: 'GenericError', desc: 'parse error' } }),
    ],
  };
  for (const [ending, [code, end]] of Object.entries(endings)) {
    it(`rejects everything when the connection ends: ${ending}`, async () => {
      const client = await open();
      const completed = new Promise<void>((resolve) => {
        client.events$.subscribe({ complete: resolve });
      });
      const pending = [client.execute('a'), ...client.executeAll([['b'], ['c']])];
      end();
      for (const promise of pending) await expectCode(promise, code as 'FAILED');
      await expectCode(client.execute('d'), code as 'FAILED');
      await completed;
    });
  }

  it('rejects everything when it is closed', async () => {
    const client = await open();
    const pending = client.execute('a');
    client.close();
    client.close();
    await expectCode(pending, 'DOMAIN_GONE');
  });
});

describe('qemu: the monitor’s client, with a pipe for each direction', () => {
  let cleanup = (): unknown => undefined;
  afterEach(() => {
    cleanup();
  });

  it('hears what QEMU said last, though nothing can be written any more', async () => {
    const script = [
      `echo '${JSON.stringify(GREETING)}'; read line; echo '{"return": {}, "id": 0}'`,
      `exec 0<&-; echo closed >&2; read line <&3; echo '{"event": "SHUTDOWN"}'`,
    ].join('; ');
    const child = spawn('sh', ['-c', script], { stdio: ['pipe', 'pipe', 'pipe', 'pipe'] });
    cleanup = () => child.kill('SIGKILL');
    const client = await QmpClient.open({ readable: child.stdout, writable: child.stdin });
    const events: QmpEvent[] = [];
    client.events$.subscribe((event) => events.push(event));
    await once(child.stderr, 'data');
    const broken = new Promise((resolve) => child.stdin.once('close', resolve));
    const pending = client.execute('stop');
    await broken;
    expect(events).to.deep.equal([]);
    (child.stdio[3] as Writable).end('go on\n');
    await expectCode(pending, 'DOMAIN_GONE');
    expect(events.map(({ name }) => name)).to.deep.equal(['SHUTDOWN']);
    await once(child, 'close');
  });
});
