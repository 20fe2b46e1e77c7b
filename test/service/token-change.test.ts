// A token that is changed while two sides are linked. The next link is refused until both have the same; but a primary
// that lives is not taken for dead meanwhile, and one that dies is.

import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { encodeControl } from '../../src/channel/wire/encode.js';
import { createMemoryWitness } from '../../src/failover/witnesses/memory.js';
import { FakePrimary } from '../channel/fake-primary.js';
import { Authority } from '../support/authority.js';
import { captureLog } from '../support/capture.js';
import { Cleanup } from '../support/cleanup.js';
import { until } from '../support/until.js';
import { WitnessLine } from './hosts.js';
import { Proxy } from './proxy.js';
import { TestPrimary, TestSecondary } from './world.js';

const WINDOW_MS = 400;
type Side = 'primary' | 'secondary';

describe('service: a token that is changed', function () {
  this.timeout(30_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  /** Two sides that are linked by a token which each has in a file of its own. */
  async function linked({ tls = false } = {}) {
    const directory = await cleanup.directory();
    const files = { primary: `${directory}/primary`, secondary: `${directory}/secondary` };
    const put = (side: Side, secret: string) => writeFileSync(files[side], secret, { mode: 0o600 });
    put('primary', 'a'.repeat(64));
    put('secondary', 'a'.repeat(64));
    const authority = tls ? new Authority(directory) : null;
    const primaryLog = captureLog();
    const registers = createMemoryWitness();
    const line = new WitnessLine(registers);
    const primary = new TestPrimary({
      registers: line,
      file: { token: files.primary, ...(authority && { tls: authority.issue() }) },
      log: primaryLog.log,
    });
    cleanup.add(() => primary.service.stop());
    await primary.start();
    const proxy = new Proxy(primary.port);
    const port = await proxy.listen();
    cleanup.add(() => proxy.close());
    const secondary = new TestSecondary(
      { port, registers },
      {
        failover: { reconnectWindowMs: WINDOW_MS },
        file: { token: files.secondary, ...(authority && { tls: authority.issue() }) },
      },
    );
    cleanup.add(() => secondary.service.stop());
    await secondary.start();
    await until('checkpoints', () => primary.checkpoints.length > 3);
    const primarySays = (text: RegExp) => primaryLog.lines().filter(({ msg }) => text.test(String(msg)));
    return { primary, proxy, secondary, line, files, put, primarySays };
  }

  type World = Awaited<ReturnType<typeof linked>>;

  async function change({ put, ...world }: World, side: Side, secret: string): Promise<void> {
    put(side, secret);
    await world[side].service.reload();
  }

  /**
   * The link is cut for a moment: the primary lives, refuses and is refused, and nobody takes over, though the register
   * would let the secondary.
   */
  async function refused({ primary, proxy, secondary, line, files }: World): Promise<void> {
    line.isCut = true;
    const before = proxy.connections;
    proxy.cut();
    await until('it was dialled', () => proxy.connections > before + 3);
    await sleep(3 * WINDOW_MS);
    expect(secondary.failovers).to.deep.equal([]);
    expect(secondary.status()).to.include({ role: 'standby', link: 'suspect' });
    expect(secondary.status().error?.code).to.equal('TOKEN_MISMATCH');
    expect(secondary.status().error?.message).to.include(files.secondary);
    expect(primary.status()).to.include({ role: 'primary', link: 'down' });
  }

  async function linkedAgain({ primary, secondary }: World): Promise<void> {
    const before = primary.checkpoints.length;
    await until('linked again', () => primary.checkpoints.length > before + 3, 20_000);
    expect(secondary.status().error).to.equal(null);
    expect(secondary.failovers).to.deep.equal([]);
  }

  for (const tls of [false, true]) {
    const where = tls ? 'over TLS' : 'in plaintext';
    for (const sides of [['primary'], ['secondary'], ['primary', 'secondary']] as const) {
      it(`${where}, by the ${sides.join(' and, to another, the ')}: no takeover, and a link when both have the same`, async () => {
        const world = await linked({ tls });
        for (const side of sides)
          await change(world, side, side === 'primary' ? 'b'.repeat(64) : 'c'.repeat(64));
        await refused(world);
        const said = world.primarySays(/the secondary refuses us: .*token/);
        expect(said).to.have.length(1);
        expect(said[0]).to.include({ token: world.files.primary, code: 'TOKEN_MISMATCH' });
        for (const side of ['primary', 'secondary'] as const) await change(world, side, 'd'.repeat(64));
        await linkedAgain(world);
      });
    }
  }

  it('more than once on one side, and back', async () => {
    const world = await linked();
    for (const letter of ['b', 'c', 'd']) await change(world, 'primary', letter.repeat(64));
    await refused(world);
    await change(world, 'primary', 'a'.repeat(64));
    await linkedAgain(world);
  });

  it('on both sides: taken without a signal', async () => {
    const world = await linked();
    for (const side of ['primary', 'secondary'] as const) world.put(side, 'b'.repeat(64));
    await until('both have it', () => world.primarySays(/a new token is in use/).length > 0, 20_000);
    world.proxy.cut();
    await linkedAgain(world);
  });

  it('the primary that refuses dies: its secondary takes over; who listens there then is nobody', async () => {
    for (const listens of [false, true]) {
      const world = await linked();
      await change(world, 'primary', 'b'.repeat(64));
      await refused(world);
      const fake = await new FakePrimary().start((peer) => {
        peer.send(encodeControl({ kind: 'error', code: 'TOKEN_MISMATCH', message: 'alive', facts: {} }));
      });
      cleanup.add(() => fake.close());
      if (listens) world.proxy.target = fake.port;
      else await world.proxy.close();
      await until('failover', () => world.secondary.failovers.length === 2);
    }
  });
});
