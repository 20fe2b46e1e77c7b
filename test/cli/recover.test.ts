// romulus recover and convert, on files: the image is the last complete checkpoint, whatever was cut; other layers hold
// the same stream; and nothing is left at OUT, or beside it, by a job that failed.

import { expect } from 'chai';
import { mkdir, readFile, readdir } from 'node:fs/promises';
import path from 'node:path';
import { convertVerb } from '../../src/cli/convert.js';
import { recoverVerb } from '../../src/cli/recover.js';
import { codeOf } from '../../src/errors.js';
import { MemoryDomain } from '../memory/domain.js';
import { restoreDomain } from '../../src/restore/restore.js';
import { RecordType } from '../../src/stream/format.js';
import { LibxlRecordType } from '../../src/stream/libxl.js';
import { concatenate, encodeRecord } from '../../src/stream/writer.js';
import { readFixture } from '../fixtures/xen.js';
import { record } from '../restore/recorded.js';
import { sourceOf } from '../save/support.js';
import { expectSameBytes, pageDataBody } from '../stream/streams.js';
import {
  checkpointed,
  judged,
  libxcStream,
  libxlEnd,
  libxlOpening,
  part,
  soundParts,
  surveyed,
} from '../stream/examine/support.js';
import { Captured, differences, folderForTests, romulus, stateAt } from './stream-files.js';

/** What Xen's HVM streams walk: 4 GiB less the 16 MiB below it. */
const XEN_PAGES = 0xff000;

async function failure(job: Promise<unknown>): Promise<string> {
  try {
    await job;
  } catch (error) {
    return codeOf(error);
  }
  throw new Error('it did not fail');
}

describe('recover', function () {
  this.timeout(60_000);
  const folder = folderForTests();

  async function recovered(octets: Uint8Array): Promise<Uint8Array> {
    const input = await folder.write('in', octets);
    expect(await recoverVerb(input, folder.path('out'), new Captured())).to.equal(0);
    return readFile(folder.path('out'));
  }

  for (const name of ['pv-remus-6ckpt', 'hvm-remus-6ckpt', 'hvm-colo-6ckpt.libxc', 'pv-remus-6ckpt.libxc']) {
    it(`${name}, cut in several places`, async () => {
      const octets = readFixture(name);
      const { records } = surveyed(octets);
      const ends = records.filter((record) => record.checkpoint !== undefined);
      const cuts = [
        [6, octets.length],
        [3, (ends[3]?.offset ?? 0) - 4000],
        [1, (ends[0]?.offset ?? 0) + 17],
      ] as const;
      // The HVM streams name a million pfns each.
      for (const [number, cut] of cuts.slice(0, name.startsWith('hvm') ? 2 : 3)) {
        const image = await recovered(octets.subarray(0, cut));
        expect(judged(image).findings).to.deep.equal([]);
        expect(differences(stateAt(image, 0), stateAt(octets, number))).to.deep.equal([]);
        expect(surveyed(image).survey).to.deep.include({ checkpoints: 0, end: 'ended' });
      }
    });
  }

  it('the HVM image restores to the domain that the restorer had at failover', async () => {
    const octets = readFixture('hvm-remus-6ckpt.libxc');
    const cut = octets.subarray(0, octets.length - 40_000);
    const restored = async (bytes: Uint8Array, streamType: 'plain' | 'remus') => {
      const domain = new MemoryDomain({ pages: XEN_PAGES, empty: true });
      await restoreDomain({
        domain,
        source: sourceOf(bytes, 1024 * 1024),
        streamType,
        callbacks: { checkpoint: () => Promise.resolve('success') },
      });
      return domain;
    };
    const failedOver = await restored(cut, 'remus');
    const plain = await restored(await recovered(cut), 'plain');
    expectSameBytes(plain.context, failedOver.context);
    expect([...plain.params]).to.have.deep.members([...failedOver.params]);
    for (const pfn of stateAt(octets, 5).pages.keys()) {
      if (!failedOver.populated.has(pfn)) {
        expect(plain.populated.has(pfn)).to.equal(false);
        continue;
      }
      expect(Buffer.compare(plain.page(pfn), failedOver.page(pfn)), `pfn ${pfn}`).to.equal(0);
    }
  });

  for (const layer of ['libxc', 'xl'] as const) {
    it(`${layer}: cut at every record boundary`, async () => {
      const octets = checkpointed('pv', layer);
      const whole: number[] = [];
      const { records } = surveyed(octets);
      for (const { layer: of, name, offset, length } of records) {
        if (name === (layer === 'libxc' ? 'CHECKPOINT' : 'CHECKPOINT_END') && of !== 'xl') {
          whole.push(offset + length);
        }
      }
      for (const { offset, length } of records) {
        const cut = octets.subarray(0, offset + length - (offset % 3));
        const number = whole.filter((end) => end <= cut.length).length;
        if (number === 0) {
          const input = await folder.write('cut', cut);
          expect(await failure(recoverVerb(input, folder.path('none'), new Captured()))).to.equal(
            'NOTHING_WHOLE',
          );
        } else {
          const image = await recovered(cut);
          expect(differences(stateAt(image, 0), stateAt(octets, number))).to.deep.equal([]);
          expect(judged(image).findings).to.deep.equal([]);
        }
      }
      expect(await readdir(path.dirname(folder.path('x')))).to.not.include('none');
    });
  }

  it('the latest page and record win, types and emulators are kept', async () => {
    const parts = soundParts('hvm').slice(0, -1);
    const emulator = (octet: number) =>
      encodeRecord(LibxlRecordType.EMULATOR_CONTEXT, Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0, octet));
    const checkpoint = (octet: number, ...entries: [number, number][]) =>
      concatenate([
        encodeRecord(RecordType.PAGE_DATA, pageDataBody(entries, octet)),
        encodeRecord(RecordType.VERIFY),
        encodeRecord(0x80000099, Uint8Array.of(octet)),
        encodeRecord(RecordType.HVM_PARAMS, new Uint8Array(8)),
        encodeRecord(RecordType.HVM_CONTEXT, new Uint8Array(5).fill(octet)),
        encodeRecord(RecordType.CHECKPOINT),
        emulator(octet),
        encodeRecord(LibxlRecordType.CHECKPOINT_END),
      ]);
    const octets = concatenate([
      libxlOpening,
      libxcStream('hvm', parts),
      checkpoint(1, [5000, 0], [5001, 0], [5002, 9], [5003, 13]),
      checkpoint(2, [5001, 0], [5003, 0], [5000, 15]),
      checkpoint(3, [5002, 14]).subarray(0, -8),
    ]);
    const image = await recovered(octets);
    const { pages, records } = stateAt(image, 0);
    expect([5000, 5001, 5002, 5003].map((pfn) => pages.get(pfn)?.type)).to.deep.equal([15, 0, 9, 0]);
    expect([5001, 5002, 5003].map((pfn) => pages.get(pfn)?.content?.[4095])).to.deep.equal([2, 1, 2]);
    expect(records.get('libxc 9')).to.deep.equal(Buffer.alloc(5, 2));
    expect(records.get('libxc 10')?.length).to.be.greaterThan(8);
    expect(records.get('libxl 3')?.[8]).to.equal(2);
    expect([...records.keys()].filter((key) => key.includes(String(0x80000099)))).to.deep.equal([]);
    expect(judged(image).findings).to.deep.equal([]);
  });

  it('a domain with a device model: cut anywhere, the image is what the restorer had at failover', async () => {
    const { octets, boundaries, snapshots, pages } = await record('libxl', 24, 4, 5);
    expect(judged(octets).findings).to.deep.equal([]);
    expect(surveyed(octets).survey).to.deep.include({ checkpoints: 4, end: 'ended', guest: 'x86 HVM' });
    for (const { offset } of boundaries) {
      for (const cut of [offset - 1, offset, offset + 1]) {
        if (cut > octets.length) continue;
        const number = boundaries.filter((boundary) => !boundary.end && boundary.offset <= cut).length;
        if (number === 0) {
          const input = await folder.write('cut', octets.subarray(0, cut));
          const job = recoverVerb(input, folder.path('none'), new Captured());
          expect(await failure(job)).to.equal('NOTHING_WHOLE');
          continue;
        }
        const image = await recovered(octets.subarray(0, cut));
        expect(judged(image).findings).to.deep.equal([]);
        const domain = new MemoryDomain({ pages, empty: true, emulator: true });
        await restoreDomain({
          domain,
          source: sourceOf(image),
          streamType: 'plain',
          callbacks: { checkpoint: () => Promise.resolve('success') },
        });
        const snapshot = snapshots[number - 1];
        expectSameBytes(domain.memory, snapshot?.memory ?? new Uint8Array(0));
        expectSameBytes(domain.emulatorState, snapshot?.emulatorState ?? new Uint8Array(0));
      }
    }
    // A bare stream has no place for what such a domain cannot be without.
    const whole = await folder.write('whole', octets);
    expect(await failure(convertVerb(whole, folder.path('bare'), { to: 'libxc' }, new Captured()))).to.equal(
      'USAGE',
    );
  });

  it('what cannot be recovered leaves nothing at OUT', async () => {
    const damaged = checkpointed('pv', 'libxc');
    const first = surveyed(damaged).records.find(({ name }) => name === 'PAGE_DATA');
    damaged.set([0x50], (first?.offset ?? 0) + 8 + 8 + 7);
    const wrong: [string, Uint8Array, string][] = [
      ['back channel', readFixture('hvm-colo-back.libxc'), 'USAGE'],
      ['text', new TextEncoder().encode('no stream at all'), 'NOTHING_WHOLE'],
      ['cut', readFixture('pv-save').subarray(0, 4_000_000), 'NOTHING_WHOLE'],
      ['no page type', damaged, 'BAD_RECORD'],
      ['only an end', concatenate([libxlOpening.subarray(0, 16), libxlEnd]), 'BAD_RECORD'],
      [
        'no context',
        libxcStream('hvm', [part(RecordType.STATIC_DATA_END), part(RecordType.END)]),
        'BAD_RECORD',
      ],
    ];
    const fresh = path.join(path.dirname(folder.path('x')), 'fresh');
    await mkdir(fresh);
    for (const [what, octets, code] of wrong) {
      const input = await folder.write('wrong', octets);
      expect(await failure(recoverVerb(input, path.join(fresh, 'out'), new Captured())), what).to.equal(code);
    }
    const good = await folder.write('good', libxcStream('pv'));
    expect(await failure(recoverVerb(good, path.join(fresh, 'none', 'out'), new Captured()))).to.equal(
      'ENOENT',
    );
    expect(await failure(recoverVerb(good, fresh, new Captured()))).to.equal('BAD_PLACE');
    expect(await readdir(fresh)).to.deep.equal([]);
    expect((await readdir(path.dirname(fresh))).filter((name) => name.includes('.tmp-'))).to.deep.equal([]);
  });
});

describe('convert', function () {
  this.timeout(60_000);
  const folder = folderForTests();

  for (const name of ['pv-save', 'hvm-remus-6ckpt']) {
    it(`${name} from layer to layer and back again`, async () => {
      const octets = readFixture(name);
      const configuration = surveyed(octets).survey.xl?.configuration;
      const input = await folder.write('xl', octets);
      const text = octets.subarray(52, octets.indexOf(0, 52));
      const config = await folder.write('config', text);
      expect(JSON.parse(Buffer.from(text).toString())).to.deep.equal(configuration);
      const step = async (from: string, out: string, to: 'xl' | 'libxl' | 'libxc') => {
        expect(await convertVerb(from, folder.path(out), { to, config }, new Captured())).to.equal(0);
        return readFile(folder.path(out));
      };
      const libxl = await step(input, 'libxl', 'libxl');
      expectSameBytes(libxl, octets.subarray(octets.length - libxl.length));
      expectSameBytes(await step(folder.path('libxl'), 'libxc', 'libxc'), readFixture(`${name}.libxc`));
      expectSameBytes(await step(input, 'libxc', 'libxc'), readFixture(`${name}.libxc`));
      expectSameBytes(await step(folder.path('libxc'), 'libxl-again', 'libxl'), libxl);
      expectSameBytes(await step(folder.path('libxc'), 'xl-again', 'xl'), octets);
      expectSameBytes(await step(folder.path('libxl'), 'xl-again', 'xl'), octets);
    });
  }

  it('refuses what is not possible, and leaves nothing', async () => {
    const bare = libxcStream('hvm');
    const emulator = encodeRecord(LibxlRecordType.EMULATOR_CONTEXT, Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0, 7));
    const text = await folder.write('text', 'name = "x"');
    const refused: [Uint8Array, 'xl' | 'libxl' | 'libxc', string | undefined, string][] = [
      [bare, 'libxc', undefined, 'already'],
      [bare, 'xl', undefined, '--config'],
      [bare, 'xl', text, 'no JSON'],
      [concatenate([libxlOpening, bare, emulator, libxlEnd]), 'libxc', undefined, 'emulators'],
      [bare.subarray(0, -8), 'libxl', undefined, 'unsound'],
      [checkpointed('pv', 'libxc').subarray(0, -1), 'libxl', undefined, 'recover'],
      [readFixture('hvm-colo-back.libxc'), 'libxl', undefined, 'back channel'],
    ];
    for (const [octets, to, config, why] of refused) {
      const input = await folder.write('in', octets);
      const options = config === undefined ? { to } : { to, config };
      try {
        await convertVerb(input, folder.path('out'), options, new Captured());
        expect.fail('not refused');
      } catch (error) {
        expect(codeOf(error)).to.equal('USAGE');
        expect(String(error)).to.contain(why);
      }
    }
    expect(await readdir(path.dirname(folder.path('x')))).to.not.include('out');
  });

  it('drops what follows END', async () => {
    const input = await folder.write('live', readFixture('pv-live'));
    await convertVerb(input, folder.path('out'), { to: 'libxc' }, new Captured());
    expectSameBytes(await readFile(folder.path('out')), readFixture('pv-live.libxc'));
  });

  it('as a process', async () => {
    const input = await folder.write('in', checkpointed('hvm', 'libxc'));
    const out = folder.path('process-out');
    expect((await romulus('convert', input, out)).exitCode).to.equal(2);
    expect(await romulus('convert', input, out, '--to', 'libxl')).to.deep.include({
      exitCode: 0,
      stdout: '',
    });
    expectSameBytes(await readFile(out), checkpointed('hvm', 'libxl'));
    const recovered = await romulus('recover', out, out);
    expect(recovered.stderr).to.contain('checkpoint 3');
    expect((await romulus('recover', folder.path('nothing'), out)).exitCode).to.equal(2);
  });
});
