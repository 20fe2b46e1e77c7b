// The embedded machine with a disk, through the real services: its guest, which checks the disk at each tick, is well over
// failovers, re-protections and trials, and what the standby has is not sent again.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { CHUNK_BYTES } from '../../src/disk/dirty-map.js';
import { f64At } from '../../src/disk/extents.js';
import type { DiskTarget } from '../../src/hypervisor/port-disks.js';
import { HypervisorError } from '../../src/hypervisor/port.js';
import { openSource, openTarget } from '../../src/service/hypervisors.js';
import { successiveTicksOf, ticksOf } from '../hypervisor/support.js';
import { Cleanup } from '../support/cleanup.js';
import { freePorts } from '../support/ports.js';
import { until } from '../support/until.js';
import { AgentPair, HOSTS, PATIENCE_MS } from './agent-pair.js';
import { Resync } from './resyncs.js';
import { TwoAgents } from './two-agents.js';

const BLOCK_BYTES = 512;
const DISK_CHUNKS = 64;
/** So many blocks are written in 64 ticks. */
const CHUNK_BLOCKS = CHUNK_BYTES / BLOCK_BYTES;
const WRITES_PER_TICK = 2;
/** What it says of the last ticks may be held: a few more. And what was written to before is marked by the chunk. */
const SPARE_CHUNKS = 3;

const small = {
  kind: 'embedded',
  memory: '4MiB',
  guest: { dirtyPages: 10, workingSetPages: 64, tickMs: 5, diskBlocks: 48 },
};

/** Standbys whose disks were changed first. */
function withDisks(change: (disks: DiskTarget) => void): typeof openTarget {
  return async (...given) => {
    const target = await openTarget(...given);
    if (!target.disks) throw new Error('it has no disk');
    change(target.disks);
    return target;
  };
}

describe('service: the embedded machine’s disk', function () {
  this.timeout(120_000);
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it('its host is killed, and the next one: the guest finds its disk as of the memory that it has', async () => {
    const [alpha, beta] = await freePorts(2);
    const directory = await cleanup.directory();
    const cluster = {
      witness: { kind: 'file', directory },
      hosts: { alpha: { address: '127.0.0.1', port: alpha }, beta: { address: '127.0.0.1', port: beta } },
      http: false,
      log: { level: 'silent' },
      domains: [
        {
          name: 'web',
          hosts: HOSTS,
          hypervisor: small,
          checkpoint: { intervalMs: 20 },
          heartbeat: { intervalMs: 50, timeoutMs: 400 },
        },
      ],
    };
    let said = '';
    const pair = new AgentPair({ cluster, directory, said: (_, text) => (said += text) });
    cleanup.add(() => pair.close());
    for (const host of HOSTS) pair.begin(host);
    for (let round = 0; round < 2; round++) {
      const owner = await pair.paired();
      await sleep(300 + Math.random() * 100);
      await pair.kill(owner);
      said = said.slice(0, said.lastIndexOf('\n') + 1); // what it has not finished saying it never will
      const ticks = ticksOf(said).length;
      // Each block has been checked, and written over.
      await until('it goes on', () => ticksOf(said).length > ticks + 48, PATIENCE_MS);
      pair.begin(owner);
      expect(await pair.paired()).to.not.equal(owner);
    }
    const ticks = ticksOf(said);
    expect(ticks[0]).to.equal(1);
    expect(ticks).to.deep.equal([...new Set(ticks)].sort((a, b) => a - b));
  });

  it('after cuts only chunks that were written since are sent; and the guest is well after a switchover', async () => {
    const sent = { bytes: 0 };
    const resync = await Resync.start(cleanup, {
      hypervisor: {
        kind: 'embedded',
        memory: '16MiB',
        guest: { ...small.guest, diskBlocks: DISK_CHUNKS * CHUNK_BLOCKS },
      },
      memoryBytes: 16 * 2 ** 20,
      dirtyPages: small.guest.dirtyPages,
      hypervisors: {
        openSource,
        openTarget: withDisks((disks) => {
          const write = disks.write.bind(disks);
          disks.write = (disk, extents, data) => {
            for (let k = 0; k < extents.count; k++) sent.bytes += f64At(extents.lengths, k);
            return write(disk, extents, data);
          };
        }),
      },
    });
    expect(sent.bytes, 'it is counted').to.be.at.least(BLOCK_BYTES);
    for (const ms of [0, 1000, 0]) {
      const [before = 0] = ticksOf(resync.two.said).slice(-1);
      sent.bytes = 0;
      await resync.cut(ms);
      const { bytes } = sent;
      const [now = 0] = ticksOf(resync.two.said).slice(-1);
      const chunks = Math.ceil(((now - before) * WRITES_PER_TICK) / CHUNK_BLOCKS) + SPARE_CHUNKS;
      expect(bytes, `after ${ms} ms`).to.be.within(BLOCK_BYTES, chunks * CHUNK_BYTES);
      expect(chunks, 'the test is one').to.be.lessThan(DISK_CHUNKS / 2);
    }
    await resync.takeOver();
  });

  it('a stream that cannot go on with the standby fills another one, whose disk is blank yet', async () => {
    const begun: string[] = [];
    let fails = false;
    const resync = await Resync.start(cleanup, {
      hypervisor: { ...small, guest: { ...small.guest, diskBlocks: 3 * CHUNK_BLOCKS } },
      memoryBytes: 4 * 2 ** 20,
      dirtyPages: small.guest.dirtyPages,
      hypervisors: {
        openSource: async (...given) => {
          const source = await openSource(...given);
          const log = source.cleanLogDirty.bind(source);
          source.cleanLogDirty = (into) => {
            if (!fails) return log(into);
            fails = false;
            return Promise.reject(new HypervisorError('FAILED', 'the log is lost'));
          };
          return source;
        },
        openTarget: withDisks((disks) => {
          const begin = disks.begin.bind(disks);
          disks.begin = (how) => {
            begun.push(how);
            return begin(how);
          };
        }),
      },
    });
    const { two } = resync;
    const ticks = () => ticksOf(two.said).length;
    await until('all of it was written', () => ticks() > 2 * CHUNK_BLOCKS, PATIENCE_MS);
    fails = true;
    await until('another is filled', () => begun.length === 2, PATIENCE_MS);
    expect(begun).to.deep.equal(['in-place', 'in-place']);
    await resync.takeOver();
    // Each block has been checked.
    const before = ticks();
    await until('it goes on', () => ticks() > before + CHUNK_BLOCKS, PATIENCE_MS);
  });

  it('a trial has the disk of its checkpoint, while the next ones are committed', async () => {
    const two = await TwoAgents.start(cleanup, { hypervisor: small });
    await two.more();
    for (let round = 0; round < 3; round++) {
      const before = two.status('beta').epochCommitted;
      const report = await two.agent('beta').testFailover('web', { seconds: 1 });
      expect(report).to.include({ lives: true });
      expect(successiveTicksOf(report.console).length).to.be.greaterThan(20);
      expect(two.status('beta').epochCommitted).to.be.greaterThan(before + 10);
    }
    // Of what it wrote nothing is left.
    await two.agent('alpha').switchover('web');
    await two.more(800);
    expect(two.owner).to.equal('beta');
    expect(successiveTicksOf(two.said)[0]).to.equal(1);
  });
});
