// Flushes of a disk are what they are, unless they are relaxed: then only while it is protected.

import { expect } from 'chai';
import { endAll } from '../../../../src/hypervisor/qemu/disks/attachment.js';
import { HypervisorError } from '../../../../src/hypervisor/port.js';
import { Cleanup } from '../../../support/cleanup.js';
import { until } from '../../../support/until.js';
import { expectCode } from '../../support.js';
import { needQemu } from '../support.js';
import { DiskLab, type LabOptions } from './lab.js';
import { needQemuTools } from './support.js';

interface Node {
  readonly 'node-name': string;
  readonly detect_zeroes: string;
  readonly cache: Readonly<Record<string, boolean>>;
}

describe('qemu disks: mirrors and flushes', () => {
  it('a flush that fails leaves no mirror behind', async () => {
    const ended: string[] = [];
    const attachment = (id: string) => ({ end: () => Promise.resolve(void ended.push(id)) });
    const failing = { switchOn: () => Promise.reject(new HypervisorError('FAILED', 'it does not flush')) };
    await expectCode(endAll([attachment('one'), attachment('two')], failing), 'FAILED', 'flush');
    expect(ended).to.deep.equal(['one', 'two']);
  });
});

describe('qemu disks: durability', function () {
  this.timeout(60_000);
  const cleanup = new Cleanup();
  before(async function () {
    await needQemu(this);
    await needQemuTools(this);
  });
  afterEach(() => cleanup.run());

  /** Of all nodes of the guest's disk: what QEMU says of them. */
  async function nodesOf({ source }: DiskLab): Promise<Node[]> {
    const nodes = (await source.machine.qmp.execute('query-named-block-nodes', { flat: true })) as Node[];
    return nodes
      .filter((node) => !node['node-name'].startsWith('romulus-'))
      .map(({ 'node-name': name, detect_zeroes, cache }) => ({ 'node-name': name, detect_zeroes, cache }));
  }

  async function flushes(lab: DiskLab): Promise<boolean[]> {
    return (await nodesOf(lab)).map(({ cache }) => cache['no-flush'] === false);
  }

  const drives: Record<string, Partial<LabOptions>> = {
    'with an iothread': { format: 'qcow2', iothread: true },
    'of a node with options': {
      drive: (image) => `file=${image},format=raw,cache=none,aio=threads,detect-zeroes=on,discard=unmap`,
    },
  };
  for (const [which, drive] of Object.entries(drives)) {
    it(`relaxed, a disk ${which} is not flushed from keep() to rest(), and while it is not lost`, async () => {
      const lab = await DiskLab.open(cleanup, { format: 'raw', ...drive, relaxed: ['disk'] });
      const { disks } = lab;
      const before = await nodesOf(lab);
      expect(await flushes(lab)).to.deep.equal([true, true]);
      await disks.keep();
      expect(await flushes(lab)).to.deep.equal([false, false]);
      expect(await lab.copy()).to.equal(null);
      await lab.run();
      expect(await lab.pause()).to.equal(0);
      await disks.rest();
      expect(await nodesOf(lab), 'as it was').to.deep.equal(before);
      await disks.keep();
      await lab.plant('die');
      await until('it is told', () => lab.lost.length > 0);
      await lab.plant('die', false);
      await disks.rest();
      expect(await flushes(lab), 'lost').to.deep.equal([true, true]);
      await disks.attach();
      await disks.keep();
      expect(await flushes(lab)).to.deep.equal([false, false]);
      await disks.detach();
      expect(await nodesOf(lab), 'as it was').to.deep.equal(before);
    });
  }

  it('strict, it always is', async () => {
    const lab = await DiskLab.open(cleanup, { format: 'raw' });
    await lab.disks.keep();
    expect(await flushes(lab)).to.deep.equal([true, true]);
  });
});
