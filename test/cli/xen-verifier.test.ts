// Xen's own verifier of streams, as Debian ships it, accepts what Romulus writes: images that recover made, the layers
// that convert made, and what the saver saves. (It knows nothing of streams that break off, as Remus's do.)

import { expect } from 'chai';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { convertVerb } from '../../src/cli/convert.js';
import { recoverVerb } from '../../src/cli/recover.js';
import { MemoryDomain } from '../memory/domain.js';
import { saveDomain } from '../../src/save/save.js';
import { readFixture } from '../fixtures/xen.js';
import { saveTrial, trialGuest } from '../guest/pv-trial.js';
import { RecordingSink, driver, pagePattern } from '../save/support.js';
import { checkpointed, libxcStream, surveyed } from '../stream/examine/support.js';
import { ensureFile } from '../support/tools.js';
import { Captured, type Run, folderForTests, run } from './stream-files.js';

const PACKAGE = 'xen-utils-4.17';
const FOLDER = 'usr/lib/xen-4.17';
/** Time that fetching the package may take on a slow machine. */
const TIMEOUT_MS = 300_000;

describe("Xen's verifier", function () {
  this.timeout(TIMEOUT_MS);
  const folder = folderForTests();
  let verifier = '';

  before(async function () {
    const found = await ensureFile('verify-stream-v2', `${FOLDER}/bin`, PACKAGE);
    if (found === null) {
      this.skip();
    }
    verifier = found;
  });

  async function verified(file: string, layer: 'libxc' | 'libxl' | 'xl'): Promise<Run> {
    const python = path.join(path.dirname(verifier), '../lib/python');
    const env = { ...process.env, PYTHONPATH: python };
    return run('python3', ['-B', verifier, '-v', '-f', layer, '-i', file], env);
  }

  async function accepts(file: string, layer: 'libxc' | 'libxl' | 'xl'): Promise<string> {
    const { exitCode, stdout, stderr } = await verified(file, layer);
    expect(exitCode, stdout.slice(-2000) + stderr.slice(-2000)).to.equal(0);
    return stdout;
  }

  it('is one that refuses', async () => {
    const file = await folder.write('cut', readFixture('pv-save').subarray(0, 4_000_000));
    expect((await verified(file, 'xl')).exitCode).to.not.equal(0);
    const bad = libxcStream('pv');
    bad[40 + 8 + 7] = 1;
    expect((await verified(await folder.write('bad', bad), 'libxc')).exitCode).to.not.equal(0);
    await accepts(await folder.write('good', libxcStream('pv')), 'libxc');
  });

  for (const guest of ['pv', 'hvm'] as const) {
    it(`recover's images of ${guest}-remus-6ckpt, cut at several places`, async () => {
      const octets = readFixture(`${guest}-remus-6ckpt`);
      const ends = surveyed(octets).records.filter(({ checkpoint }) => checkpoint !== undefined);
      for (const cut of [octets.length, (ends[2]?.offset ?? 0) - 1, (ends[0]?.offset ?? 0) + 16]) {
        const input = await folder.write('in', octets.subarray(0, cut));
        await recoverVerb(input, folder.path('out'), new Captured());
        const said = await accepts(folder.path('out'), 'xl');
        expect(said).to.contain(guest === 'pv' ? 'x86 PV' : 'x86 HVM');
      }
    });

    it(`a bare ${guest} image, and the same in libxl's layer`, async () => {
      const input = await folder.write('in', checkpointed(guest, 'libxc'));
      await recoverVerb(input, folder.path('out'), new Captured());
      await accepts(folder.path('out'), 'libxc');
      await convertVerb(folder.path('out'), folder.path('libxl'), { to: 'libxl' }, new Captured());
      await accepts(folder.path('libxl'), 'libxl');
    });
  }

  it('what the saver saves of an HVM domain, plain and with checkpoints that end', async () => {
    for (const [streamType, layer] of [
      ['plain', 'libxc'],
      ['remus', 'libxc'],
      ['plain', 'libxl'],
      ['remus', 'libxl'],
    ] as const) {
      const domain = new MemoryDomain({
        pages: 600,
        emulator: layer === 'libxl',
        holes: [599],
        params: [{ index: 19n, value: 1n }],
        cpuPolicy: { cpuid: new Uint8Array(24).fill(9), msrs: new Uint8Array(16) },
      });
      for (let pfn = 0; pfn < 599; pfn += 1) {
        domain.write(pfn, pagePattern(pfn, 0));
      }
      if (layer === 'libxc') domain.context = Uint8Array.of(1, 2, 3, 4);
      await domain.start();
      const sink = new RecordingSink();
      await saveDomain({
        domain,
        sink,
        streamType,
        live: true,
        callbacks: driver({ domain, checkpoints: 3 }),
      });
      const file = await folder.write('saved', sink.octets());
      // Of checkpoints inside libxl's layer Xen's verifier knows nothing.
      if (layer === 'libxc' || streamType === 'plain') await accepts(file, layer);
      await recoverVerb(file, folder.path('out'), new Captured());
      await accepts(folder.path('out'), layer);
      expect((await readFile(folder.path('out'))).length).to.be.greaterThan(599 * 4096);
    }
  });

  for (const width of [4, 8] as const) {
    it(`what the saver saves of a PV domain of width ${width}, plain and with checkpoints`, async () => {
      const plain = await saveTrial(trialGuest({ width }));
      await accepts(await folder.write('plain', plain.octets), 'libxc');
      const remus = await saveTrial(trialGuest({ width }), { streamType: 'remus', checkpoints: 3 });
      const file = await folder.write('saved', remus.octets);
      await accepts(file, 'libxc');
      await recoverVerb(file, folder.path('out'), new Captured());
      await accepts(folder.path('out'), 'libxc');
    });
  }
});
