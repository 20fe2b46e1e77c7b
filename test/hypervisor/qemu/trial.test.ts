// A standby is tried in a QEMU of its own: the guest goes on there, what it does reaches nobody, and nothing of it is left.

import { execFile } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { Bitmap } from '../../../src/hypervisor/bitmap.js';
import type { QemuConfig, QemuTarget } from '../../../src/hypervisor/qemu/index.js';
import { openQemuSource, openQemuTarget } from '../../../src/hypervisor/qemu/index.js';
import type { NetworkDevice } from '../../../src/hypervisor/qemu/network/network.js';
import { DomainCopy } from '../../../src/restore/copy.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';
import { TwoAgents } from '../../service/two-agents.js';
import { Cleanup } from '../../support/cleanup.js';
import { freePorts } from '../../support/ports.js';
import { processesWith } from '../../support/processes.js';
import { until } from '../../support/until.js';
import { Console, firstEvent, successiveTicksOf, ticksOf } from '../support.js';
import { World, announce } from './outside.js';
import { PATIENCE_MS, qemus } from './pair.js';
import { countingArguments, SharedDisk, withCountingGuest } from './shared-disk.js';
import { Replicator, TEST_NAME, TICK_ARGUMENTS, needQemu, tickGuest, withObedientGuest } from './support.js';

const run = promisify(execFile);

/** What this process holds, and what there is of it on this host. */
function held(): object {
  return {
    descriptors: readdirSync('/proc/self/fd').length,
    mounts: readFileSync('/proc/self/mountinfo', 'utf8').split('\n').length,
    files: readdirSync(tmpdir()).sort(),
    memory: readdirSync('/dev/shm').sort(),
    network: readFileSync('/proc/self/net/dev', 'utf8').match(/^ *[^ :]+:/gm),
  };
}

describe('qemu: a trial', function () {
  this.timeout(2 * PATIENCE_MS);
  const cleanup = new Cleanup();
  before(function () {
    return needQemu(this);
  });
  afterEach(async () => {
    await cleanup.run();
    expect(processesWith(TEST_NAME)).to.deep.equal([]);
  });

  /** A standby that holds the third checkpoint; `network` is its owner's. */
  async function standbyOf(
    config: QemuConfig,
    network = config.network ?? [],
    said: (console: Console) => Promise<void> = (console) => console.untilText('tick 20 ok'),
  ): Promise<QemuTarget> {
    const source = await openQemuSource({ ...config, network });
    cleanup.add(() => source.destroy());
    const target = await openQemuTarget(config);
    cleanup.add(() => target.destroy());
    const console = new Console(source);
    await source.start();
    const replicator = new Replicator(source, target);
    await replicator.begin();
    await said(console);
    for (let k = 0; k < 3; k++) await replicator.checkpoint();
    return target;
  }

  /** The guest of the standby, in a domain for a trial: it can be started. */
  async function trialOf(target: QemuTarget): Promise<QemuTarget> {
    const trial = await target.trial(new AbortController().signal);
    cleanup.add(() => trial.destroy());
    const all = new Bitmap(target.machine.memoryBytes / PAGE_SIZE);
    all.setAll();
    await new DomainCopy(target, trial, all).run();
    await trial.setEmulatorContext(target.lastCheckpoint());
    return trial;
  }

  it('goes on where the standby is; its frames reach nobody, and nothing of it is left', async function () {
    if (process.getuid?.() !== 0) return this.skip();
    const tap = async (name: string): Promise<NetworkDevice> => {
      await run('ip', ['tuntap', 'add', name, 'mode', 'tap']);
      cleanup.add(() => run('ip', ['link', 'delete', name]));
      return { id: 'lan', backend: { kind: 'tap', interface: name } };
    };
    const wire = await World.open();
    cleanup.add(() => wire.close());
    const [port = 0] = await freePorts(1);
    const user = (options: string): NetworkDevice => ({ id: 'nat', backend: { kind: 'user', options } });
    const card: NetworkDevice = { ...wire.card, id: 'wire' };
    const config = tickGuest({
      network: [await tap('romulus-t1'), user(`net=10.9.8.0/24,hostfwd=tcp:127.0.0.1:${port}-:7`), card],
    });
    const target = await standbyOf(config, [await tap('romulus-t0'), user('net=10.9.8.0/24'), card]);
    const before = held();
    const trial = await trialOf(target);
    const said = new Console(trial);
    await trial.start();
    await said.until(() => said.ticks().length > 20);
    expect(successiveTicksOf(said.text)[0]).to.be.greaterThan(20);
    await wire.hears(0, () => announce(trial.machine.qmp));
    expect(processesWith(`${TEST_NAME}-trial`)).to.have.length(1);
    await trial.destroy();
    expect(processesWith(`${TEST_NAME}-trial`)).to.deep.equal([]);
    expect(held()).to.deep.equal(before);
    // The standby is as it was, and has its network.
    const standby = new Console(target);
    await target.start();
    await standby.until(() => standby.ticks().length > 5);
    expect(successiveTicksOf(standby.text)[0]).to.equal(successiveTicksOf(said.text)[0]);
    await wire.hears(1, () => announce(target.machine.qmp));
  });

  for (const dirty of ['fuse', 'compare'] as const) {
    it(`of a standby whose memory is found by ${dirty}: another memory, and one that is found without help`, async function () {
      if (dirty === 'fuse' && process.getuid?.() !== 0) return this.skip();
      const target = await standbyOf(tickGuest({ dirty }));
      const trial = await trialOf(target);
      expect(trial.memory.tracking.way).to.equal('compare');
      const said = new Console(trial);
      await trial.start();
      await said.until(() => said.ticks().length > 5);
      successiveTicksOf(said.text);
    });
  }

  it('tells of a reset, and of a panic', async () => {
    await withObedientGuest(async (image) => {
      const config: QemuConfig = {
        ...{ name: TEST_NAME, memoryBytes: 2 ** 24, accelerator: 'tcg' },
        arguments: ['-kernel', image, '-device', 'pvpanic'],
      };
      const target = await standbyOf(config, [], (console) => console.untilText('.'));
      const trial = await trialOf(target);
      const resets: string[] = [];
      trial.resets$.subscribe((reason) => resets.push(reason));
      const said = new Console(trial);
      await trial.start();
      expect(resets, 'that of the loading is none').to.deep.equal([]);
      await trial.input(Buffer.from('r'));
      await until('it was reset', () => resets.length > 0, PATIENCE_MS);
      await said.untilText('.'); // it has booted again, and hears
      // SeaBIOS, reset with a shadow of itself that has run, resets once more: up to three times, as the clock falls.
      expect(new Set(resets)).to.deep.equal(new Set(['guest-reset']));
      const ended = firstEvent(trial);
      await trial.input(Buffer.from('x'));
      expect(await ended).to.deep.equal({ kind: 'crashed', reason: 'the guest panicked' });
    });
  });

  it('of a pair of agents: it lives; then the owner’s QEMU is killed, and the standby goes on', async () => {
    const hypervisor = { kind: 'qemu', accelerator: 'tcg', memory: '16MiB', arguments: TICK_ARGUMENTS };
    const two = await TwoAgents.start(cleanup, { hypervisor });
    await two.more();
    const before = processesWith('web').filter((pid) => pid !== process.pid);
    for (let round = 0; round < 2; round++) {
      const { epochAcknowledged } = two.status('alpha');
      const report = await two.agent('beta').testFailover('web', { seconds: 1 });
      expect(report).to.include({ lives: true });
      successiveTicksOf(report.console);
      expect(two.status('alpha').epochAcknowledged).to.be.greaterThan(epochAcknowledged + 3);
      expect(processesWith('web').filter((pid) => pid !== process.pid)).to.deep.equal(before);
    }
    expect(two.failovers).to.deep.equal([]);
    const tried = two
      .agent('beta')
      .testFailover('web', { seconds: 3600 })
      .catch((error: unknown) => error);
    await until('it runs', () => qemus('standby', 'web-trial').length > 0, PATIENCE_MS);
    for (const pid of qemus('primary', 'web')) process.kill(pid, 'SIGKILL');
    const { length } = ticksOf(two.said);
    await until('it goes on', () => ticksOf(two.said).length > length + 20, PATIENCE_MS);
    expect(two.owner).to.equal('beta');
    expect(await tried).to.have.property('code', 'INTERRUPTED');
    expect(qemus('standby', 'web-trial')).to.deep.equal([]);
    expect(two.lost).to.be.at.least(0);
    expect(successiveTicksOf(two.history)[0]).to.equal(1);
  });

  it('of a guest with a shared disk: it writes, and not to the disk', async () => {
    const file = path.join(await cleanup.directory(), 'disk');
    const disk = await SharedDisk.create(file);
    cleanup.add(() => disk.close());
    await withCountingGuest(async (image) => {
      const hypervisor = {
        ...{ kind: 'qemu', accelerator: 'tcg', memory: '16MiB', sharedDisks: ['disk'], fence: 'external' },
        arguments: countingArguments(image, file),
      };
      const agents = new Cleanup();
      try {
        const two = await TwoAgents.start(agents, { hypervisor });
        await until('the guest counts', () => disk.count > 20, PATIENCE_MS);
        const { count } = disk;
        const report = await two.agent('beta').testFailover('web', { seconds: 2 });
        expect(report).to.include({ lives: true });
        await until('the count goes on', () => disk.count > count + 20, PATIENCE_MS);
        expect(disk.steps, 'steps back').to.equal(0);
      } finally {
        await agents.run();
      }
    });
  });
});
