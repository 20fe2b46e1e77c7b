// A standby is tried in a QEMU of its own: what that does reaches nobody, and nothing of it is left.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { Bitmap } from '../../../src/hypervisor/bitmap.js';
import {
  openQemuSource,
  openQemuTarget,
  type QemuConfig,
  type QemuTarget,
} from '../../../src/hypervisor/qemu/index.js';
import type { NetworkDevice } from '../../../src/hypervisor/qemu/network/network.js';
import { DomainCopy } from '../../../src/restore/copy.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';
import { Cleanup } from '../../support/cleanup.js';
import { processesWith } from '../../support/processes.js';
import { Console, successiveTicksOf } from '../support.js';
import { Replicator, TEST_NAME, needQemu, tickGuest } from './support.js';

const run = promisify(execFile);
const LIMIT_MS = 60_000;

describe('qemu: a trial', function () {
  this.timeout(LIMIT_MS);
  const cleanup = new Cleanup();
  before(function () {
    return needQemu(this);
  });
  afterEach(async () => {
    await cleanup.run();
    expect(processesWith(TEST_NAME)).to.deep.equal([]);
  });

  async function standbyOf(config: QemuConfig, network: readonly NetworkDevice[] = []): Promise<QemuTarget> {
    const source = await openQemuSource({ ...config, network: network.map((n) => ({ ...n })) });
    cleanup.add(() => source.destroy());
    const target = await openQemuTarget(config);
    cleanup.add(() => target.destroy());
    const said = new Console(source);
    await source.start();
    const replicator = new Replicator(source, target);
    await replicator.begin();
    await said.untilText('tick 20 ok');
    for (let k = 0; k < 3; k++) await replicator.checkpoint();
    return target;
  }

  async function copyOf(target: QemuTarget): Promise<QemuTarget> {
    const trial = await target.trial(new AbortController().signal);
    cleanup.add(() => trial.destroy());
    const all = new Bitmap(target.machine.memoryBytes / PAGE_SIZE);
    all.setAll();
    await new DomainCopy(target, trial, all).run();
    await trial.setEmulatorContext(target.lastCheckpoint());
    return trial;
  }

  it('runs', async () => {
    await run('ip', ['tuntap', 'add', 'rmlt0', 'mode', 'tap']);
    cleanup.add(() => run('ip', ['link', 'delete', 'rmlt0']));
    await run('ip', ['tuntap', 'add', 'rmlt1', 'mode', 'tap']);
    cleanup.add(() => run('ip', ['link', 'delete', 'rmlt1']));
    const card = (n: string, port: number): NetworkDevice[] => [
      { id: 'lan', backend: { kind: 'tap', interface: n } },
      { id: 'nat', backend: { kind: 'user', options: `net=10.9.8.0/24,hostfwd=tcp:127.0.0.1:${port}-:7` } },
      { id: 'wire', backend: { kind: 'socket', options: 'udp=127.0.0.1:9,localaddr=127.0.0.1:0' } },
    ];
    const config = tickGuest({ network: card('rmlt1', 17171) });
    const target = await standbyOf(config, card('rmlt0', 17172));
    const trial = await copyOf(target);
    const said = new Console(trial);
    await trial.start();
    await said.until(() => said.ticks().length > 20);
    console.log(successiveTicksOf(said.text).length, processesWith(`${TEST_NAME}-trial`).length);
    await trial.destroy();
    expect(processesWith(`${TEST_NAME}-trial`)).to.deep.equal([]);
  });
});
