// The netdev gate in a real QEMU. Frames are made by QEMU itself (announcements of the guest's address), one at a time,
// and seen from outside: the netdev is a UDP socket, whose other end is ours.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { QemuSource } from '../../../src/hypervisor/qemu/index.js';
import { NetdevGate } from '../../../src/hypervisor/qemu/network/netdev-gate.js';
import { launchQemu } from '../../../src/hypervisor/qemu/process/launch.js';
import type { OutputGate } from '../../../src/output/gate.js';
import { QUIET_MS, World, announce } from './outside.js';
import { MIB, expectCode } from '../support.js';
import { needQemu, tickGuest } from './support.js';

describe('qemu: the gate of a network interface', function () {
  let world: World;
  let domain: QemuSource;

  before(function () {
    return needQemu(this);
  });
  beforeEach(async () => {
    world = await World.open();
    const config = { dirty: 'compare' as const, memoryBytes: 8 * MIB, network: [world.card] };
    // Without the gates that a primary has from the start.
    const machine = await launchQemu(tickGuest(config, 'pages=64 dirty=8 tick_ms=10'), { role: 'primary' });
    domain = new QemuSource(machine);
  });
  afterEach(async () => {
    await domain.destroy();
    await world.close();
  });

  const speak = () => announce(domain.machine.qmp);
  const arrived = (count: number) => world.heard(count);
  const paused = async (action: () => Promise<void>): Promise<void> => {
    await domain.suspend();
    await action();
    await domain.resume();
  };

  it('lets nothing out before its release, over many epochs', async () => {
    const gate = await NetdevGate.open(domain.machine.qmp, 'lan');
    expect(gate satisfies OutputGate).to.include({ heldBytes: 0, emittedBytes: 0, releasedBytes: 0 });
    await domain.start();
    await gate.selfTest(domain.machine.deviceState);
    await arrived(1); // of the self-test
    let expected = 1;
    for (let epoch = 0; epoch < 12; epoch++) {
      const said = epoch % 3;
      for (let k = 0; k < said; k++) await speak();
      await paused(() => gate.seal(epoch));
      await speak(); // belongs to the next epoch
      await arrived(expected);
      await gate.release(epoch);
      expected += said + (epoch === 0 ? 0 : 1);
      await arrived(expected);
    }
  });

  it('releases, for a guest that is stopped, when it runs; joins epochs that overtake each other', async () => {
    const gate = await NetdevGate.open(domain.machine.qmp, 'lan');
    await domain.start();
    await speak();
    await paused(() => gate.seal(0));
    await speak();
    await paused(async () => {
      await gate.release(0);
      await gate.seal(1);
      await arrived(0);
    });
    await arrived(1);
    await speak();
    await paused(() => gate.seal(2));
    await gate.release(1);
    await arrived(2);
    await gate.release(2); // 2 waits for the door that 1 was behind: it joins the next
    await arrived(2);
    // A new stream: what was sealed belongs to its open epoch.
    await speak();
    await paused(() => gate.seal(3));
    await gate.restart();
    await gate.release(3);
    await arrived(2);
    await paused(() => gate.seal(0));
    await gate.release(0);
    await arrived(4);
  });

  it('lets out what is acknowledged, though every next epoch is sealed before', async () => {
    const gate = await NetdevGate.open(domain.machine.qmp, 'lan');
    await domain.start();
    await gate.seal(0);
    let released = -1;
    for (let epoch = 1; epoch <= 8; epoch++) {
      await speak();
      await gate.seal(epoch); // a window of two: the one before is acknowledged only now
      await gate.release(++released);
      expect(world.frames).to.be.at.most(released);
    }
    await sleep(QUIET_MS);
    expect(world.frames).to.be.within(5, 8);
  });

  it('is tested again, though an agent before us was killed in the middle of the test', async () => {
    await NetdevGate.open(domain.machine.qmp, 'lan');
    await domain.start();
    const { deviceState, qmp } = domain.machine;
    const watcher = { id: 'romulus-lan-watch', netdev: 'lan', queue: 'rx', file: deviceState.path };
    await qmp.execute('object-add', { 'qom-type': 'filter-dump', ...watcher });
    const gate = await NetdevGate.open(domain.machine.qmp, 'lan');
    await gate.selfTest(domain.machine.deviceState);
    const objects = await qmp.execute('qom-list', { path: '/objects' });
    expect(JSON.stringify(objects)).to.not.include('watch');
  });

  it('seals nothing if it could not be closed', async () => {
    const gate = await NetdevGate.open(domain.machine.qmp, 'lan');
    await domain.start();
    await gate.pass();
    await domain.machine.qmp.execute('object-del', { id: 'romulus-lan-sealed' });
    await expectCode(gate.hold(), 'FAILED');
    await expectCode(gate.seal(0), 'FAILED', 'lan');
    await gate.restart();
    await expectCode(gate.hold(), 'FAILED');
    await expectCode(gate.seal(0), 'FAILED', 'lan');
  });

  it('passes, holds again, and discards for good', async () => {
    const gate = await NetdevGate.open(domain.machine.qmp, 'lan');
    await domain.start();
    await speak();
    await paused(() => gate.seal(0));
    await speak();
    await gate.pass();
    await arrived(2);
    await speak();
    await arrived(3);
    await gate.hold();
    await speak();
    await paused(() => gate.seal(0));
    await arrived(3);
    await gate.discard();
    await gate.release(0);
    await gate.pass();
    for (const name of ['valve', 'sealed', 'open']) {
      const path = `/objects/romulus-lan-${name}`;
      await domain.machine.qmp.execute('qom-set', { path, property: 'status', value: 'off' });
    }
    await speak();
    await arrived(3);
  });

  it('loses, and never lets out, what nobody has released when the filters open by themselves', async () => {
    const intervalMs = 20;
    const gate = await NetdevGate.open(domain.machine.qmp, 'lan', intervalMs * 1000);
    await domain.start();
    const intervals = async (): Promise<void> => {
      for (let k = 0; k < 10; k++) {
        await speak();
        await sleep(intervalMs);
      }
    };
    await intervals();
    await paused(() => gate.seal(0));
    await intervals();
    await arrived(0);
    // It is the valve that keeps them.
    const path = '/objects/romulus-lan-valve';
    await domain.machine.qmp.execute('qom-set', { path, property: 'status', value: 'off' });
    await intervals();
    expect(world.frames).to.be.greaterThan(0);
  });

  it('takes over what is there, and holds it; says what is not', async () => {
    await NetdevGate.open(domain.machine.qmp, 'lan');
    await domain.start();
    await speak();
    const gate = await NetdevGate.open(domain.machine.qmp, 'lan');
    await arrived(0);
    await paused(() => gate.seal(0));
    await gate.release(0);
    await arrived(1);
    const devices = await domain.machine.qmp.execute('query-chardev');
    await expectCode(NetdevGate.open(domain.machine.qmp, 'net7'), 'BAD_CONFIGURATION', 'net7');
    expect(await domain.machine.qmp.execute('query-chardev')).to.deep.equal(devices);
  });

  it('fails its self-test if a filter is open', async () => {
    const gate = await NetdevGate.open(domain.machine.qmp, 'lan');
    await domain.start();
    for (const name of ['valve', 'sealed', 'open']) {
      const path = `/objects/romulus-lan-${name}`;
      await domain.machine.qmp.execute('qom-set', { path, property: 'status', value: 'off' });
    }
    await expectCode(gate.selfTest(domain.machine.deviceState), 'FAILED', 'before its epoch');
  });
});
