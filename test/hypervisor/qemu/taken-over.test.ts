// A domain that was taken over to is a source like any other: its gates, its ends, what others do to it. That it can be
// protected in its turn, generation after generation, is tested in chain.test.ts.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import type { Domain, DomainEvent } from '../../../src/hypervisor/port.js';
import { openQemuSource, openQemuTarget, type QemuConfig } from '../../../src/hypervisor/qemu/index.js';
import type { QemuTarget, TakenOver } from '../../../src/hypervisor/qemu/index.js';
import { Cleanup } from '../../support/cleanup.js';
import { processesWith } from '../../support/processes.js';
import { Protection } from '../protection.js';
import { Console, MIB, expectCode, firstEvent, successiveTicksOf } from '../support.js';
import { UNHEARD, World, announce } from './outside.js';
import { killAll, qemus } from './pair.js';
import { TEST_NAME, needQemu, tickGuest } from './support.js';

const SMALL = 'pages=64 dirty=8 tick_ms=10';

describe('qemu: a domain that was taken over to', function () {
  const cleanup = new Cleanup();
  before(function () {
    return needQemu(this);
  });
  afterEach(async () => {
    await cleanup.run();
    expect(processesWith(TEST_NAME)).to.deep.equal([]);
  });
  const keep = <T extends Domain>(domain: T): T => {
    cleanup.add(() => domain.destroy());
    return domain;
  };
  const small = (options: Partial<QemuConfig> = {}): QemuConfig =>
    tickGuest({ dirty: 'compare', memoryBytes: 8 * MIB, ...options }, SMALL);

  /** A standby with a checkpoint of a guest that is gone. */
  async function standby(
    config = small(),
    atFirst: (qmp: TakenOver['machine']['qmp']) => Promise<unknown> = () => Promise.resolve(),
  ): Promise<QemuTarget> {
    const source = keep(await openQemuSource({ ...config, network: config.network ? [UNHEARD] : [] }));
    const screen = new Console(source);
    await source.start();
    await screen.untilText('tick 2 ok\n');
    await atFirst(source.machine.qmp);
    const target = keep(await openQemuTarget(config));
    const protection = await Protection.begin(source, target);
    for (let epoch = 0; epoch < 3; epoch++) await protection.checkpoint();
    await source.destroy();
    await protection.breakOff();
    return target;
  }

  async function takenOver(config = small()): Promise<QemuTarget> {
    const target = await standby(config);
    expect(() => target.source())
      .to.throw()
      .with.property('code', 'WRONG_STATE');
    await target.start();
    return target;
  }

  it('is a source that runs, the same one each time, and is named and made like its standby', async () => {
    const target = await standby();
    const before = await target.info();
    await target.start();
    const source = target.source();
    expect(target.source()).to.equal(source);
    expect(await source.info()).to.deep.equal({ ...before, state: 'running' });
    expect(await target.info()).to.deep.equal(await source.info());
    expect(source).to.include({ orphaned: false, leave: undefined, expose: undefined });
    await expectCode(source.start(), 'WRONG_STATE');
    await source.suspend();
    expect((await target.info()).state).to.equal('suspended');
    await target.resume();
    expect((await source.info()).state).to.equal('running');
  });

  it('its gates pass, are tested when they hold first, and hold then', async () => {
    const world = await World.open();
    cleanup.add(() => world.close());
    const target = await takenOver(small({ network: [world.card] }));
    const source = target.source();
    const [gate, ...more] = source.gates;
    if (!gate) throw new Error('there is no gate');
    expect(more).to.deep.equal([]);
    const speak = () => announce(source.machine.qmp);
    await world.hears(1, speak);
    await world.hears(1, speak);

    // The test lets its own frame out: one. A checkpoint waits for it.
    const { frames } = world;
    const held = gate.hold();
    await source.suspend();
    await held;
    await source.resume();
    await world.heard(frames + 1);
    await world.hears(0, speak);
    const another = keep(await openQemuTarget(small({ network: [UNHEARD] })));
    const protection = await Protection.begin(source, another);
    await world.hears(1, () => protection.checkpoint());
    await world.hears(0, speak);
    await world.hears(1, () => protection.checkpoint());

    // It passes again when its standby is gone, and holds again without another test.
    await speak();
    await world.hears(1, () => gate.pass());
    await world.hears(0, () => gate.hold());
    await gate.discard();
    await gate.pass();
    await world.hears(0, speak);
  });

  it('a gate that is not safe does not hold: an error says so', async () => {
    const target = await takenOver(small({ network: [UNHEARD] }));
    const source = target.source();
    const [gate] = source.gates;
    // Frames of the guest do not meet what is not there.
    await source.machine.qmp.execute('object-del', { id: 'romulus-lan-sealed' });
    await expectCode(gate?.hold() ?? Promise.resolve(), 'FAILED', 'lan');
  });

  it('an octet that it says comes by both names, once by each, whenever one changes from one to the other', async () => {
    const target = await standby();
    const screen = new Console(target);
    let heard = '';
    let listening = target.output$.subscribe((bytes) => (heard += Buffer.from(bytes).toString('latin1')));
    await target.start();
    for (let changes = 0; changes < 20; changes++) {
      await sleep(Math.random() * 10);
      const next = changes % 2 === 0 ? target.source() : target;
      listening.unsubscribe();
      listening = next.output$.subscribe((bytes) => (heard += Buffer.from(bytes).toString('latin1')));
    }
    await screen.until(() => screen.ticks().length > 10);
    expect(heard).to.equal(screen.text);
    expect(successiveTicksOf(screen.text.slice(screen.text.indexOf('\n') + 1))).to.have.length.above(5);
  });

  for (const [which, of] of [
    ['the source', (target: QemuTarget) => target.source()],
    ['the standby', (target: QemuTarget) => target],
  ] as const) {
    it(`ends wholly when ${which} is destroyed, also while it is logged, and suspended`, async () => {
      const target = await takenOver(small({ network: [UNHEARD] }));
      const source = target.source();
      const ends: string[] = [];
      for (const [name, domain] of Object.entries({ target, source })) {
        domain.events$.subscribe({
          next: ({ kind }) => ends.push(`${name}: ${kind}`),
          complete: () => ends.push(`${name}: over`),
        });
        domain.output$.subscribe({ complete: () => ends.push(`${name}: silent`) });
      }
      await source.enableLogDirty();
      await source.suspend();
      await Promise.all([of(target).destroy(), of(target).destroy()]);
      expect(ends.sort()).to.deep.equal(['source: over', 'source: silent', 'target: over', 'target: silent']);
      expect(processesWith(TEST_NAME)).to.deep.equal([]);
      expect((await source.info()).state).to.equal('destroyed');
      expect((await target.info()).state).to.equal('destroyed');
      expect(target.source()).to.equal(source);
      await expectCode(source.resume(), 'DOMAIN_GONE');
      await target.destroy();
      await source.destroy();
    });
  }

  it('has crashed, told once by each name, when its QEMU is killed', async () => {
    const target = await takenOver();
    const source = target.source();
    const events: DomainEvent[] = [];
    for (const domain of [target, source]) domain.events$.subscribe((event) => events.push(event));
    const ended = [firstEvent(target), firstEvent(source)];
    await source.enableLogDirty();
    killAll('standby');
    await Promise.all(ended);
    await expectCode(source.suspend(), 'DOMAIN_GONE');
    await expectCode(target.suspend(), 'DOMAIN_GONE');
    await source.destroy();
    expect(events.map((event) => ('reason' in event ? event.reason : event.kind))).to.deep.equal([
      'QEMU was killed by SIGKILL',
      'QEMU was killed by SIGKILL',
    ]);
  });

  it('is not disturbed by another standby of its seat, from before or from later', async () => {
    const target = await standby();
    const earlier = keep(await target.another());
    const screen = new Console(target);
    await target.start();
    const source = target.source();
    const [pid] = qemus('standby');
    const later = keep(await target.another());
    for (const other of [earlier, later]) {
      const protection = await Protection.begin(source, other);
      await expectCode(protection.checkpoint(), 'WRONG_STATE', 'runs');
      await protection.close();
      await expectCode(other.start(), 'WRONG_STATE');
      await other.destroy();
    }
    expect(qemus('standby')).to.deep.equal([pid]);
    const { length } = screen.ticks();
    await screen.until(() => screen.ticks().length > length + 3);
    expect((await source.info()).state).to.equal('running');
  });

  it('one that stood still stands still, and is protected so, by stream after stream', async () => {
    const target = await standby(small(), (qmp) => qmp.execute('stop'));
    const screen = new Console(target);
    await target.start();
    const source = target.source();
    const stoppedBy: (string | null)[] = [];
    source.stoppedBy$.subscribe((by) => stoppedBy.push(by));
    let third = keep(await openQemuTarget(small()));
    for (let stream = 0; stream < 2; stream++) {
      const protection = await Protection.begin(source, third);
      for (let epoch = 0; epoch < 3; epoch++) await protection.checkpoint();
      await protection.breakOff();
      expect(await source.machine.qmp.execute('query-status')).to.include({ running: false });
      if (stream === 1) break;
      await third.destroy();
      third = keep(await openQemuTarget(small()));
    }
    expect(stoppedBy).to.deep.equal(['paused']);
    expect(screen.text).to.equal('');
    const thirdScreen = new Console(third);
    await third.start();
    expect(await third.machine.qmp.execute('query-status')).to.include({ running: false });
    await third.machine.qmp.execute('cont');
    await thirdScreen.until(() => thirdScreen.ticks().length > 3);
    expect(thirdScreen.text).to.not.include('BAD');
  });

  it('another machine than it was: told, also if that was before anybody asked', async () => {
    const port = ['-device', 'pcie-root-port,id=port0,chassis=1'];
    const target = await takenOver(small({ arguments: port }));
    await target.machine.qmp.execute('device_add', { driver: 'virtio-rng-pci', id: 'dice', bus: 'port0' });
    const change = new Promise<string>((resolve) => {
      target.source().machineChanges$.subscribe(({ message }) => resolve(message));
    });
    expect(await change).to.include('virtio-rng-pci');
  });
});
