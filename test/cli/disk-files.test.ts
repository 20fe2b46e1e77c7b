// A recorded stream with disks, in the hands of the verbs for stream files.

import { readFile } from 'node:fs/promises';
import { expect } from 'chai';
import { convertVerb } from '../../src/cli/convert.js';
import { inspectVerb } from '../../src/cli/inspect.js';
import { recoverVerb } from '../../src/cli/recover.js';
import { verifyVerb } from '../../src/cli/verify.js';
import type { SurveyedRecord } from '../../src/stream/examine/survey.js';
import { RecordType } from '../../src/stream/format.js';
import { DiskWritesBatch, WriteKind, decodeDiskWrites } from '../../src/stream/records/disks.js';
import { recordDisks, TWO_DISKS } from '../save/disk-support.js';
import { judged, surveyed } from '../stream/examine/support.js';
import { readAll } from '../stream/streams.js';
import { Captured, folderForTests } from './stream-files.js';

describe('a stream with disks', () => {
  const folder = folderForTests();
  let octets: Uint8Array;
  before(async () => {
    ({ octets } = await recordDisks({ seed: 21, checkpoints: 3, emulator: true, turns: 10 }));
  });

  it('is surveyed: each disk, and how much is written to it, as read by another way', () => {
    const counts = TWO_DISKS.map((disk) => ({
      ...disk,
      ...{ records: 0, extents: 0, dataBytes: 0, zeroBytes: 0, discardedBytes: 0 },
    }));
    const batch = new DiskWritesBatch();
    for (const record of readAll(octets)) {
      if (record.type !== RecordType.DISK_WRITES || record.layer === 'libxl') continue;
      decodeDiskWrites(record, batch);
      const of = counts[batch.disk] ?? expect.fail('no such disk');
      of.records++;
      of.extents += batch.count;
      for (let i = 0; i < batch.count; i++) {
        const length = batch.lengths[i] ?? NaN;
        if (batch.kinds[i] === WriteKind.DATA) of.dataBytes += length;
        else if (batch.kinds[i] === WriteKind.ZERO) of.zeroBytes += length;
        else of.discardedBytes += length;
      }
    }
    const { survey, records } = surveyed(octets);
    expect(survey.disks).to.deep.equal(counts);
    for (const { records: some, zeroBytes, discardedBytes } of counts) {
      expect(Math.min(some, zeroBytes, discardedBytes)).to.be.greaterThan(0);
    }
    const writes = (records as readonly SurveyedRecord[]).flatMap((record) => record.writes ?? []);
    const data = writes.reduce((sum, { dataBytes }) => sum + dataBytes, 0);
    expect(data).to.equal(counts.reduce((sum, { dataBytes }) => sum + dataBytes, 0));
  });

  it('is listed, its writes in a row in one line', async () => {
    const file = await folder.write('disks', octets);
    const output = new Captured();
    expect(await inspectVerb(file, {}, output)).to.equal(0);
    const { survey } = surveyed(octets);
    const [disk] = survey.disks;
    expect(output.text).to.match(/^ +\d+ +\d+ libxc DISKS$/m);
    expect(output.text).to.match(/libxc DISK_WRITES( × \d+)?, \d+ extents, \d+ octets of data$/m);
    expect(output.text).to.include(
      `disk         root: 1311232 octets (1.3 MiB); ${disk?.records ?? NaN} records, ` +
        `${disk?.extents ?? NaN} extents: ${disk?.dataBytes ?? NaN} octets of data, `,
    );
  });

  it('is sound, cut or whole', async () => {
    const { findings } = judged(octets);
    expect(findings).to.deep.equal([]);
    const file = await folder.write('disks', octets);
    expect(await verifyVerb(file, {}, new Captured())).to.equal(0);
    const last = readAll(octets).findLast(({ type }) => type === RecordType.DISK_WRITES);
    const cut = judged(octets.subarray(0, (last?.offset ?? 0) + 20));
    expect(cut.findings.map(({ rule }) => rule)).to.deep.equal(['truncated']);
  });

  it('keeps them in other layers', async () => {
    const bare = (await recordDisks({ seed: 22, checkpoints: 2 })).octets;
    const file = await folder.write('bare', bare);
    const out = folder.path('layered');
    expect(await convertVerb(file, out, { to: 'libxl' }, new Captured())).to.equal(0);
    const layered = await readFile(out);
    expect(surveyed(layered).survey.disks).to.deep.equal(surveyed(bare).survey.disks);
    expect(surveyed(layered).survey.layers).to.deep.equal(['libxl', 'libxc']);
  });

  it('gives an image without them', async () => {
    const file = await folder.write('disks', octets);
    const out = folder.path('image');
    expect(await recoverVerb(file, out, new Captured())).to.equal(0);
    const image = await readFile(out);
    expect(judged(image).findings).to.deep.equal([]);
    const types = readAll(image).flatMap(({ type, layer }) => (layer === 'libxl' ? [] : [type]));
    expect(types).to.include(RecordType.PAGE_DATA).and.not.include(RecordType.DISKS);
    expect(types).to.not.include(RecordType.DISK_WRITES);
  });
});
