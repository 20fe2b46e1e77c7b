// What a standby keeps whatever becomes of its QEMUs: its memory, its checkpoint, and a domain that runs its QEMU.

import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import type { Domain } from '../../../src/hypervisor/port.js';
import {
  openQemuSource,
  openQemuTarget,
  type QemuConfig,
  type QemuTarget,
} from '../../../src/hypervisor/qemu/index.js';
import { splitState } from '../../../src/hypervisor/qemu/state/memory-section.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';
import { Cleanup } from '../../support/cleanup.js';
import { processesWith } from '../../support/processes.js';
import { QEMU } from '../../support/qemu.js';
import { until } from '../../support/until.js';
import { Console, expectCode } from '../support.js';
import { PATIENCE_MS, killAll, qemus } from './pair.js';
import { Replicator, TEST_NAME, needQemu, tickGuest } from './support.js';

/** Deaths of a standby's QEMU beyond which no other is started at once. */
const DEATHS_MAX = 3;

describe('qemu: what a standby keeps', function () {
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

  async function sourceOf(config: QemuConfig = tickGuest({ dirty: 'compare' })) {
    const source = keep(await openQemuSource(config));
    const screen = new Console(source);
    await source.start();
    await screen.untilText('tick 2 ok\n');
    return source;
  }

  async function pairOf(standby: QemuConfig = tickGuest({ dirty: 'compare' })) {
    const source = await sourceOf();
    const target = keep(await openQemuTarget(standby));
    const replicator = new Replicator(source, target);
    await replicator.begin();
    await replicator.checkpoint();
    return { source, target, replicator };
  }

  function waits(target: QemuTarget): boolean {
    try {
      return target.machine.name === TEST_NAME;
    } catch {
      return false; // it is being started
    }
  }

  async function ended(): Promise<void> {
    const [pid] = qemus('standby');
    killAll('standby');
    await until('its end', () => !qemus('standby').includes(pid ?? 0), PATIENCE_MS);
  }

  it('its checkpoint, however many QEMUs die: it is taken over in another one', async () => {
    const { target } = await pairOf();
    const warnings: string[] = [];
    target.warnings$.subscribe((warning) => warnings.push(warning));
    const events: string[] = [];
    target.events$.subscribe(({ kind }) => events.push(kind));
    for (let death = 1; death <= DEATHS_MAX + 1; death++) {
      await until('a QEMU that waits', () => waits(target), PATIENCE_MS);
      await ended();
      await until('it was noticed', () => warnings.length >= death, PATIENCE_MS);
    }
    expect(events).to.deep.equal([]);
    expect((await target.info()).state).to.equal('created');
    const screen = new Console(target);
    await target.start();
    await screen.until(() => screen.ticks().length >= 3);
    expect(screen.text).to.not.include('BAD');
  });

  it('its memory, when a QEMU that has reset the machine cannot be used after all', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'romulus-keeps-'));
    cleanup.add(() => rmSync(folder, { recursive: true }));
    const binary = join(folder, 'qemu');
    const become = (script: string): void => {
      writeFileSync(binary, `#!/bin/sh\n${script}\n`);
      chmodSync(binary, 0o755);
    };
    become(`exec ${QEMU} "$@"`);
    const { source, target } = await pairOf(tickGuest({ dirty: 'compare', binary }));
    await source.suspend();
    const { ram } = target.memory.tracking;
    const firstImagePage = Uint32Array.of(256);
    const imageOf = async (): Promise<Buffer> => {
      const page = Buffer.alloc(PAGE_SIZE);
      await ram.read(firstImagePage, 1, page, 0);
      return page;
    };
    const before = await imageOf();
    expect(before.some((octet) => octet !== 0)).to.equal(true);
    // Where QEMU puts the guest's image (from 1 MiB on), as a reset would.
    become('dd if=/dev/zero of=/proc/self/fd/4 bs=4096 seek=256 count=1 conv=notrunc 2>/dev/null; exit 1');
    const warnings: string[] = [];
    target.warnings$.subscribe((warning) => warnings.push(warning));
    killAll('standby');
    await until(
      'it was tried',
      () => warnings.some((text) => text.includes('no QEMU stands by')),
      PATIENCE_MS,
    );
    expect((await imageOf()).equals(before)).to.equal(true);
    become(`exec ${QEMU} "$@"`);
    const screen = new Console(target);
    await target.start();
    await screen.until(() => screen.ticks().length >= 3);
    expect(screen.text).to.not.include('BAD');
  });

  it('the QEMU of a domain that runs: nobody else gets it', async () => {
    const { source, target } = await pairOf();
    await source.suspend();
    const context = await source.emulatorContext();
    await target.start();
    const running = qemus('standby');
    const other = keep(await target.another());
    await expectCode(other.checkpoint(context), 'WRONG_STATE', 'runs');
    expect(qemus('standby')).to.deep.equal(running);
    const screen = new Console(target);
    await screen.until(() => screen.ticks().length >= 3);
    await other.destroy();
    expect(qemus('standby')).to.deep.equal(running);
  });

  it('its stop: a domain that was taken over says so, also when somebody else lets it run', async () => {
    const { target } = await pairOf();
    await target.start();
    await target.suspend();
    expect((await target.info()).state).to.equal('suspended');
    // Nobody can let it run while its state is being taken.
    await target.source().emulatorContext();
    await target.machine.qmp.execute('cont');
    // QEMU tells of it before it answers.
    expect((await target.info()).state).to.equal('running');
    await target.suspend();
    await target.resume();
    expect((await target.info()).state).to.equal('running');
  });

  it('what is beside RAM comes with the first checkpoint, also after a pause that was none', async () => {
    const source = await sourceOf();
    await source.enableLogDirty();
    const memoryOf = async (): Promise<Uint8Array | null> =>
      splitState(await source.emulatorContext()).memory;
    await source.suspend();
    await source.resume();
    await source.suspend();
    expect(await memoryOf()).to.not.equal(null);
    await source.resume();
    await source.suspend();
    expect(await memoryOf()).to.equal(null);
  });
});
