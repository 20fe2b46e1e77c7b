// Disks of a QEMU that is not ours: replicated as any, and left as they were, by our will or without it.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { Subject } from 'rxjs';
import { firstWhere } from '../../../../src/flow/first-where.js';
import { attachQemuSource, type AttachConfig } from '../../../../src/hypervisor/qemu/index.js';
import { Cleanup } from '../../../support/cleanup.js';
import { processesWith } from '../../../support/processes.js';
import { until } from '../../../support/until.js';
import { StrangeQemu } from '../stranger.js';
import { expectCode } from '../../support.js';
import { needQemu } from '../support.js';
import { DiskLab, endsOfMirrors, imageOf, writersArguments } from './lab.js';
import { needQemuTools } from './support.js';

interface Node {
  readonly 'node-name': string;
  readonly cache: Readonly<Record<string, boolean>>;
  readonly 'dirty-bitmaps'?: unknown;
}

const AGENT = fileURLToPath(new URL('./disk-agent.js', import.meta.url));

describe('qemu disks: attached', function () {
  this.timeout(60_000);
  const cleanup = new Cleanup();
  const ofAll = new Cleanup();
  let image = '';
  let qemu: StrangeQemu;
  /** A second monitor of it. */
  let ear = '';
  before(async function () {
    await needQemu(this);
    await needQemuTools(this);
    image = await imageOf(ofAll, 'raw');
    const disk = writersArguments(`file=${image},format=raw`, true);
    ear = `${await ofAll.directory()}/ear`;
    qemu = await StrangeQemu.start([...disk, '-smp', '2', '-qmp', `unix:${ear},server=on,wait=off`]);
    ofAll.add(() => qemu.kill());
  });
  afterEach(() => cleanup.run());
  after(() => ofAll.run());

  async function attached(disks: AttachConfig['disks'] = {}): Promise<DiskLab> {
    const source = await attachQemuSource({ name: 'web', monitor: qemu.monitor, disks });
    cleanup.add(() => source.destroy());
    return new DiskLab(source, image, 'raw');
  }

  async function isEqual(lab: DiskLab): Promise<void> {
    await lab.disks.attach();
    await lab.disks.keep();
    expect(await lab.copy()).to.equal(null);
    for (let pause = 0; pause < 2; pause++) {
      await lab.run();
      expect(await lab.pause()).to.equal(0);
    }
  }

  /** In its block layer. */
  async function nothingLeft(): Promise<void> {
    const [nodes, jobs, exports] = await qemu.ask((qmp) =>
      Promise.all([
        qmp.execute('query-named-block-nodes', { flat: true }),
        qmp.execute('query-block-jobs'),
        qmp.execute('query-block-exports'),
      ]),
    );
    const names = (nodes as { 'node-name': string }[]).map((node) => node['node-name']);
    expect(names.filter((name) => name.startsWith('romulus-'))).to.deep.equal([]);
    expect([jobs, exports]).to.deep.equal([[], []]);
    expect(await qemu.isRunning()).to.equal(true);
  }

  for (const how of ['left', 'destroyed', 'left in a pause'] as const) {
    it(`${how}, nothing of us is left, and it goes on`, async () => {
      const lab = await attached();
      await isEqual(lab);
      if (how === 'left in a pause') await lab.source.suspend();
      if (how === 'destroyed') await lab.source.destroy();
      else expect(await lab.source.leave?.('free')).to.deep.equal([]);
      await nothingLeft();
    });
  }

  /** Of the nodes of its disk: whether each is flushed, and whether any is marked. */
  async function flushes(): Promise<{ readonly each: boolean[]; readonly isMarked: boolean }> {
    const nodes = (await qemu.ask((qmp) => qmp.execute('query-named-block-nodes', { flat: true }))) as Node[];
    const own = nodes.filter((node) => !node['node-name'].startsWith('romulus-'));
    return {
      each: own.map(({ cache }) => cache['no-flush'] === false),
      isMarked: own.some((node) => node['dirty-bitmaps'] !== undefined),
    };
  }

  const ON = { each: [true, true], isMarked: false };

  it('relaxed, its disk is not flushed while it is protected, and is as it was when it is left', async () => {
    const lab = await attached({ disk: { durability: 'relaxed' } });
    await isEqual(lab);
    const nodes = (await lab.source.machine.qmp.execute('query-named-block-nodes', { flat: true })) as Node[];
    const own = nodes.filter((node) => !node['node-name'].startsWith('romulus-'));
    expect(own.map(({ cache }) => cache['no-flush'])).to.deep.equal([true, true]);
    await lab.source.leave?.('free');
    expect(await flushes()).to.deep.equal(ON);
    await nothingLeft();
  });

  it('a disk that is named and not there is refused', async () => {
    const none = attached({ none: { durability: 'strict' } });
    await expectCode(none, 'BAD_CONFIGURATION', 'there is no disk none');
    expect(await flushes()).to.deep.equal(ON);
  });

  const killed = async (guard: boolean): Promise<void> => {
    const agent = spawn(process.execPath, [AGENT, qemu.monitor], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(agent.stdout, 'data');
    if (guard) for (const pid of qemu.guards()) process.kill(pid, 'SIGKILL');
    agent.kill('SIGKILL');
    await once(agent, 'close');
    const left = () => qemu.isGuarded() || processesWith('keeper.js').length > 0;
    await until('its helpers have ended', () => !left());
    expect(qemu.lives()).to.equal(true);
  };

  it('an agent is killed with its guard: the next one finds its flushes off, and switches them on', async () => {
    await killed(true);
    expect(await flushes()).to.deep.equal({ each: [false, false], isMarked: true });
    const lab = await attached();
    await lab.source.leave?.('free');
    expect(await flushes()).to.deep.equal(ON);
  });

  it('an agent is killed while it reads: its guest goes on, and the next one replicates it', async () => {
    const listening = await StrangeQemu.monitorAt(ear);
    cleanup.add(() => listening.close());
    const ends = endsOfMirrors(listening);
    await killed(false);
    expect(ends, 'else QEMU may die of it').to.deep.equal([true]);
    expect(await flushes(), 'by the guard').to.deep.equal(ON);
    expect(await qemu.isRunning()).to.equal(true);
    const lab = await attached();
    await isEqual(lab);
    await lab.source.leave?.('free');
    await nothingLeft();
  });

  // The last, since its mark keeps others from attaching.
  it('it is left stopped while its disks are attached: it stays so, and nothing of us is left', async () => {
    const common = qemu;
    try {
      const disk = writersArguments(`file=${await imageOf(cleanup, 'raw')},format=raw`, true);
      qemu = await StrangeQemu.start(disk);
      const fenced = qemu;
      cleanup.add(() => fenced.kill());
      const { source, disks } = await attached();
      const { qmp } = source.machine;
      const execute = qmp.execute.bind(qmp);
      // The pause in which they are attached lasts until it is to be left stopped.
      const told = new Subject<string>();
      qmp.execute = async (command, ...rest) => {
        const stopped = firstWhere(told, (before) => before === 'stop');
        told.next(command);
        if (command === 'blockdev-mirror') await stopped;
        const answer = await execute(command, ...rest);
        if (command === 'stop') told.next('stop');
        return answer;
      };
      const inPause = firstWhere(told, (command) => command === 'blockdev-mirror');
      disks.attach().catch(() => undefined); // or not: it is left meanwhile
      await inPause;
      await source.leave?.('stopped');
      expect(await qemu.isRunning()).to.equal(false);
      await qemu.ask((qmp) => qmp.execute('cont'));
      await nothingLeft();
    } finally {
      qemu = common;
    }
  });

  it('stopped, nothing of us is left', async () => {
    const lab = await attached();
    await isEqual(lab);
    await lab.source.leave?.('stopped');
    expect(await qemu.isRunning()).to.equal(false);
    await qemu.ask((qmp) => qmp.execute('cont'));
    await nothingLeft();
  });
});
