// What any user of this machine can do to services on loopback: connect, listen where they listened, and talk.

import { expect } from 'chai';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { dial, type DialOptions } from '../../src/channel/dial/dialer.js';
import { encodeControl } from '../../src/channel/wire/encode.js';
import { defaultTokenFile, readToken } from '../../src/channel/credentials/token-file.js';
import { createMemoryWitness } from '../../src/failover/witnesses/memory.js';
import { FakePrimary } from '../channel/fake-primary.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { WitnessLine } from './hosts.js';
import { Proxy } from './proxy.js';
import { PAGES, TestPrimary, TestSecondary, type PrimaryChanges } from './world.js';

const WINDOW_MS = 1500;
const standby: DialOptions['hello'] = {
  ...{ domain: 'alpha', hypervisor: 'memory', domainType: 2, p2mSize: PAGES, inventory: {} },
  ...{
    host: 'south',
    streamUuid: null,
    epoch: null,
    pairing: null,
    shared: null,
    images: null,
    blankDisks: [],
  },
};

async function outcomeOf(options: DialOptions): Promise<string> {
  try {
    await (await dial(options)).bye('shutdown');
    return 'linked';
  } catch (error) {
    return (error as { code: string }).code;
  }
}

describe('service: strangers on loopback', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function primaryOf(changes: PrimaryChanges = {}): Promise<TestPrimary> {
    const primary = new TestPrimary(changes);
    cleanup.add(() => primary.service.stop());
    await primary.start();
    return primary;
  }

  async function worldOf() {
    const registers = createMemoryWitness();
    const line = new WitnessLine(registers);
    const primary = await primaryOf({ registers: line });
    const proxy = new Proxy(primary.port);
    const port = await proxy.listen();
    cleanup.add(() => proxy.close());
    const secondary = new TestSecondary({ port, registers }, { failover: { reconnectWindowMs: WINDOW_MS } });
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    await until('checkpoints', () => primary.checkpoints.length > 3);
    return { primary, proxy, secondary, line };
  }

  it('one that comes first is not given the memory', async () => {
    const primary = await primaryOf();
    const url = `ws://127.0.0.1:${primary.port}`;
    expect(await outcomeOf({ url, hello: standby })).to.equal('NOT_AUTHENTICATED');
    expect(primary.transitions.map(({ link }) => link)).to.not.include('syncing');
  });

  it('one that says that it runs the domain fences nobody: without the token, with it, and with what is held', async () => {
    const { primary, secondary } = await worldOf();
    const url = `ws://127.0.0.1:${primary.port}`;
    const { streamUuid, epochAcknowledged: epoch } = primary.status();
    // The very claim that a standby could make that has taken over: the register alone says so.
    const active = { ...standby, role: 'active', streamUuid, epoch, pairing: streamUuid };
    const token = readToken(defaultTokenFile());
    expect(await outcomeOf({ url, hello: active })).to.equal('NOT_AUTHENTICATED');
    for (const host of ['south', 'west'])
      expect(await outcomeOf({ url, token, hello: { ...active, host } })).to.equal('ALREADY_LINKED');
    const before = primary.checkpoints.length;
    await until('it goes on', () => primary.checkpoints.length > before + 3);
    expect(primary.status()).to.include({ role: 'primary', link: 'replicating', streamUuid });
    expect(secondary.failovers).to.deep.equal([]);
    // Where nobody stands by it is a standby as any other.
    await secondary.service.stop();
    await until('nobody stands by', () => primary.status().register?.mode === 'alone');
    expect(await outcomeOf({ url, token, hello: active })).to.equal('linked');
    await until('it is lost again', () => primary.status().link === 'down');
    expect(primary.status()).to.include({ role: 'primary', phase: 'owner' });
    expect(primary.was('fenced')).to.equal(false);
  });

  it('one that listens where the primary listened cannot say that it is dead', async () => {
    for (const code of ['REFUSED', 'UNKNOWN_DOMAIN'] as const) {
      const { proxy, secondary, line } = await worldOf();
      line.isCut = true;
      const fake = await new FakePrimary().start((peer) => {
        peer.send(encodeControl({ kind: 'error', code, message: 'gone', facts: {} }));
      });
      cleanup.add(() => fake.close());
      const connections = proxy.connections;
      proxy.target = fake.port;
      proxy.cut();
      await until('it was dialled', () => proxy.connections > connections + 3);
      expect(secondary.failovers, code).to.deep.equal([]);
      expect(secondary.status().error?.code).to.equal('NOT_AUTHENTICATED');
      // Nor that it lives: it is nobody.
      await until('failover', () => secondary.failovers.length === 2);
    }
  });

  it('… nor in HTTP', async () => {
    const { proxy, secondary, line } = await worldOf();
    line.isCut = true;
    let asked = 0;
    const server = createServer((socket) => {
      asked++;
      socket.on('error', () => undefined).resume();
      socket.end('HTTP/1.1 400 Bad Request\r\nromulus-error: UNKNOWN_DOMAIN\r\ncontent-length: 0\r\n\r\n');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    cleanup.add(() => new Promise((resolve) => server.close(resolve)));
    const address = server.address();
    proxy.target = typeof address === 'object' && address !== null ? address.port : 0;
    proxy.cut();
    await until('it was dialled', () => asked > 3);
    expect(secondary.failovers).to.deep.equal([]);
  });

  it('two sides with tokens of their own: no link, and both are told which files', async () => {
    const directory = await cleanup.directory();
    const primary = new TestPrimary({ file: { token: `${directory}/one` } });
    cleanup.add(() => primary.service.stop());
    await primary.start();
    const secondary = new TestSecondary(primary, { file: { token: `${directory}/two` } });
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    await until('refused', () => secondary.status().error?.code === 'NOT_AUTHENTICATED');
    expect(secondary.status().error?.message).to.include(`${directory}/two`);
    await sleep(50);
    expect(primary.status().link).to.equal('down');
  });
});
