// A test failover of a domain whose disk is replicated: the guest of the trial finds its memory's disk under it, writes to it,
// and nothing of that is left; the standby goes on meanwhile. The guest judges (guest/sequence.c): it says BAD, and no more,
// where its disk is not of the moment of its memory.

import { readdirSync } from 'node:fs';
import { expect } from 'chai';
import { openQemuSource, openQemuTarget, type QemuConfig } from '../../../../src/hypervisor/qemu/index.js';
import type { HostName } from '../../../service/agent-pair.js';
import { TwoAgents } from '../../../service/two-agents.js';
import { Cleanup } from '../../../support/cleanup.js';
import { until } from '../../../support/until.js';
import { PATIENCE_MS, qemus } from '../pair.js';
import { needQemu } from '../support.js';
import { DISK_BYTES, sequenceArguments, sequencesIn, plainOf } from './kills/sequence.js';
import { needQemuTools, qemuImg, temporaryFiles } from './support.js';

const FORMATS = { alpha: 'raw', beta: 'qcow2' } as const;

/** What it says that is no line of a guest at work. */
const badOf = (said: string): string[] => said.split(/\r?\n/).filter((line) => /BAD|error/.test(line));
const okOf = (said: string): number[] => [...said.matchAll(/^ok (\d+)\r?$/gm)].map(([, n]) => Number(n));

describe('qemu disks: a trial', function () {
  this.timeout(3 * PATIENCE_MS);
  const cleanup = new Cleanup();
  const images = { alpha: '', beta: '' };
  let temporary = '';

  before(async function () {
    await needQemu(this);
    await needQemuTools(this);
  });
  beforeEach(async () => {
    for (const host of ['alpha', 'beta'] as const) {
      images[host] = `${await cleanup.directory()}/image`;
      await qemuImg('create', '-q', '-f', FORMATS[host], images[host], String(DISK_BYTES));
    }
    temporary = await temporaryFiles(cleanup);
  });
  afterEach(() => cleanup.run());

  const config = (name: string, host: HostName, asNode: boolean): QemuConfig => {
    const file = images[host];
    const given = asNode
      ? [
          ...['-blockdev', `driver=file,node-name=below,filename=${file},discard=unmap`],
          ...['-blockdev', JSON.stringify({ driver: FORMATS[host], 'node-name': 'disk', file: 'below' })],
        ]
      : ['-drive', `if=none,id=disk,file=${file},format=${FORMATS[host]}`];
    const words = sequenceArguments('').map((word, at, all) => ({ word, before: all[at - 1] }));
    const others = words.filter(({ word, before }) => word !== '-drive' && before !== '-drive');
    return {
      ...{ name, memoryBytes: 16 * 2 ** 20, accelerator: 'tcg' },
      arguments: [...given, ...others.map(({ word }) => word)],
    };
  };

  async function agents(asNode: boolean): Promise<TwoAgents> {
    return TwoAgents.start(cleanup, {
      hypervisor: { kind: 'qemu', memory: '16MiB' },
      hypervisors: {
        openSource: async ({ name }) => openQemuSource(config(name, 'alpha', asNode)),
        openTarget: async ({ name }) => openQemuTarget(config(name, 'beta', asNode)),
      },
    });
  }

  for (const asNode of [false, true]) {
    it(`its disk, of a ${asNode ? '-blockdev' : '-drive'}, is of its memory’s moment, and its own; twice`, async () => {
      const two = await agents(asNode);
      await until('the guest has written', () => okOf(two.said).length > 2, PATIENCE_MS);
      for (let round = 0; round < 2; round++) {
        const before = okOf(two.said).length;
        const report = await two.agent('beta').testFailover('web', { seconds: 2 });
        expect(report, JSON.stringify(report)).to.include({ lives: true });
        const tried = okOf(report.console);
        expect(tried.length, report.console).to.be.greaterThan(1);
        expect(badOf(report.console)).to.deep.equal([]);
        expect(qemus('standby', 'web-trial')).to.deep.equal([]);
        const left = readdirSync(temporary).filter((name) => name.startsWith('romulus-trial'));
        expect(left, 'temporary files').to.deep.equal([]);
        await until('the guest goes on', () => okOf(two.said).length > before + 2, PATIENCE_MS);
      }
      expect(two.failovers).to.deep.equal([]);
      // The owner’s QEMU dies: what the trial wrote is nowhere.
      const { length } = okOf(two.said);
      for (const pid of qemus('primary', 'web')) process.kill(pid, 'SIGKILL');
      await until('it goes on', () => okOf(two.said).length > length + 2, PATIENCE_MS);
      expect(two.owner).to.equal('beta');
      expect(badOf(two.said)).to.deep.equal([]);
    });
  }

  it('a failover while it runs ends it, and takes the disk as of the last checkpoint', async () => {
    const two = await agents(false);
    await until('the guest has written', () => okOf(two.said).length > 2, PATIENCE_MS);
    const tried = two
      .agent('beta')
      .testFailover('web', { seconds: 3600 })
      .catch((error: unknown) => error);
    await until('it runs', () => qemus('standby', 'web-trial').length > 0, PATIENCE_MS);
    const { length } = okOf(two.said);
    for (const pid of qemus('primary', 'web')) process.kill(pid, 'SIGKILL');
    await until('it goes on', () => okOf(two.said).length > length + 2, PATIENCE_MS);
    expect(await tried).to.have.property('code', 'INTERRUPTED');
    expect(qemus('standby', 'web-trial')).to.deep.equal([]);
    expect(badOf(two.said)).to.deep.equal([]);
    await two.stop();
    expect(sequencesIn(plainOf(images.beta, FORMATS.beta)).last).to.be.greaterThan(0);
  });
});
