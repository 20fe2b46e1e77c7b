// Streams of real Xen, restored onto a machine whose frames lie in another order and saved from there again, describe
// the same domain.

import { expect } from 'chai';
import { MemoryDomain } from '../memory/domain.js';
import { MemoryMachine, shuffledFrames } from '../memory/machine.js';
import { MemoryPvDomain } from '../memory/pv-domain.js';
import { PvGuestKernel } from '../memory/pv-guest.js';
import type { StreamType } from '../../src/guest/ops.js';
import { restoreDomain } from '../../src/restore/restore.js';
import { saveDomain } from '../../src/save/save.js';
import { readFixture } from '../fixtures/xen.js';
import { driver, RecordingSink } from '../save/support.js';
import { readPvImage } from './pv-image.js';
import { endpointsOfTests, expectSameDomain, planOf, privateSource } from './pv-support.js';

interface Fixture {
  readonly name: string;
  readonly streamType: StreamType;
  readonly vcpus: number;
  readonly zeroed?: boolean;
}

const fixtures: readonly Fixture[] = [
  { name: 'pv-save.libxc', streamType: 'plain', vcpus: 1 },
  { name: 'pv-live.libxc', streamType: 'plain', vcpus: 1 },
  { name: 'pv-remus-6ckpt.libxc', streamType: 'remus', vcpus: 1 },
  { name: 'pv-linux-2vcpu-save-zeroed.libxc', streamType: 'plain', vcpus: 2, zeroed: true },
];

/** What Xen's HVM streams walk: 4 GiB less the 16 MiB below it, of which a few MiB have memory. */
const XEN_PAGES = 0xff000;

describe('PV streams of real Xen', () => {
  for (const { name, streamType, vcpus, zeroed = false } of fixtures) {
    it(`${name}: restored among other frames and saved again, the same domain`, async function () {
      this.timeout(60_000);
      const octets = readFixture(name);
      const image = readPvImage(octets);
      const plan = planOf(image);
      const frames = image.maxPfn + 100;
      const machine = new MemoryMachine({ frames, order: shuffledFrames(frames, 7) });
      const domain = new MemoryPvDomain({ machine, pages: image.maxPfn + 1, vcpus });
      const endpoints = endpointsOfTests();
      const outcome = await restoreDomain({
        domain,
        source: privateSource(octets),
        streamType,
        endpoints,
        callbacks: { checkpoint: () => Promise.resolve('success') },
      });
      expect(outcome).to.deep.equal(
        streamType === 'plain' ? { kind: 'complete', epochs: 0 } : { kind: 'failover', epoch: 5 },
      );
      expect(machine.openMappings).to.equal(0);
      expect(machine.pfnOf(endpoints.xenstoreGfn)).to.equal(zeroed ? 0 : 29);
      expect(machine.pfnOf(endpoints.consoleGfn)).to.equal(zeroed ? 0 : 30);

      domain.guest = new PvGuestKernel(domain, plan);
      await domain.start();
      const sink = new RecordingSink();
      await saveDomain({
        domain,
        sink,
        streamType: 'plain',
        live: false,
        callbacks: driver({ domain, checkpoints: 0 }),
      });
      expect(machine.openMappings).to.equal(0);
      expectSameDomain(image, readPvImage(sink.octets()), domain, plan, { zeroed });
    });
  }
});

describe('HVM streams of real Xen', () => {
  for (const [name, streamType] of [
    ['hvm-save.libxc', 'plain'],
    ['hvm-remus-6ckpt.libxc', 'remus'],
  ] as const) {
    it(`${name}: restored and saved again, the same domain`, async function () {
      this.timeout(60_000);
      const octets = readFixture(name);
      const domain = new MemoryDomain({ pages: XEN_PAGES, empty: true });
      await restoreDomain({
        domain,
        source: privateSource(octets),
        streamType,
        callbacks: { checkpoint: () => Promise.resolve('success') },
      });
      await domain.start();
      const sink = new RecordingSink();
      await saveDomain({
        domain,
        sink,
        streamType: 'plain',
        live: false,
        callbacks: driver({ domain, checkpoints: 0 }),
      });
      const original = readPvImage(octets);
      const saved = readPvImage(sink.octets());
      expect(saved.bodies).to.deep.equal(original.bodies);
      // A restore empties the xenstore ring, whose page a parameter names.
      const rings = new Set([1n, 5n, 6n].map((index) => Number(domain.params.get(index) ?? -1n)));
      expect(saved.pages.size).to.equal(original.pages.size);
      for (const [pfn, page] of original.pages) {
        const theirs = saved.pages.get(pfn) ?? expect.fail(`no page ${pfn}`);
        if (rings.has(pfn)) expect(theirs.every((octet) => octet === 0)).to.equal(true);
        else if (Buffer.compare(page, theirs) !== 0) expect.fail(`page ${pfn} differs`);
      }
      let different = 0;
      for (const [pfn, type] of original.types) if (saved.types.get(pfn) !== type) different++;
      expect(different).to.equal(0);
      expect(saved.types.size).to.equal(original.types.size);
    });
  }
});
