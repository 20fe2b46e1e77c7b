// The verbs on files of libvirt and xenopsd: the stream inside is read; and on files that are none: their name, and what
// to do.

import { expect } from 'chai';
import { readFile } from 'node:fs/promises';
import { gzipSync } from 'node:zlib';
import { convertVerb } from '../../src/cli/convert.js';
import { inspectVerb } from '../../src/cli/inspect.js';
import { recoverVerb } from '../../src/cli/recover.js';
import { verifyVerb } from '../../src/cli/verify.js';
import { readFixture } from '../fixtures/xen.js';
import { judged } from '../stream/examine/support.js';
import { libvirtFile, xenopsdFile } from '../stream/examine/wrapped-files.js';
import { expectSameBytes } from '../stream/streams.js';
import { Captured, differences, folderForTests, stateAt } from './stream-files.js';

describe('wrapped streams', function () {
  this.timeout(60_000);
  const folder = folderForTests();

  it("libvirt's file of an HVM guest", async () => {
    const xl = readFixture('hvm-save');
    const libxl = xl.subarray(Buffer.from(xl.buffer, xl.byteOffset, xl.length).indexOf('LibxlFmt'));
    const file = await folder.write('libvirt', libvirtFile(libxl));
    const output = new Captured();
    expect(await verifyVerb(file, {}, output)).to.equal(0);
    expect(output.text).to.contain('the stream lies in a file of libvirt');
    expect(await inspectVerb(file, {}, output)).to.equal(0);
    expect(output.text).to.contain('layers       libvirt › libxl › libxc version 3');
    const said = new Captured();
    await recoverVerb(file, folder.path('out'), said);
    expect(said.text).to.contain("left out: libvirt's header");
    const image = await readFile(folder.path('out'));
    expect(judged(image).findings).to.deep.equal([]);
    expect(differences(stateAt(image, 0), stateAt(libxl, 0))).to.deep.equal([]);
    await convertVerb(file, folder.path('out'), { to: 'libxl' }, new Captured());
    expectSameBytes(await readFile(folder.path('out')), libxl);
  });

  it("xenopsd's file of a PV guest, whole and cut behind the stream", async () => {
    const libxc = readFixture('pv-save.libxc');
    const whole = xenopsdFile(libxc);
    for (const octets of [whole, whole.subarray(0, -20)]) {
      const file = await folder.write('xenopsd', octets);
      const said = new Captured();
      await recoverVerb(file, folder.path('out'), said);
      expect(said.text).to.contain("left out: xenopsd's Varstored, 20 octets at");
      const image = await readFile(folder.path('out'));
      expect(judged(image).findings).to.deep.equal([]);
      expect(differences(stateAt(image, 0), stateAt(libxc, 0))).to.deep.equal([]);
    }
    const file = await folder.write('xenopsd', whole);
    await convertVerb(file, folder.path('out'), { to: 'libxc' }, new Captured());
    expectSameBytes(await readFile(folder.path('out')), libxc);
    await convertVerb(file, folder.path('libxl'), { to: 'libxl' }, new Captured());
    await convertVerb(folder.path('libxl'), folder.path('out'), { to: 'libxc' }, new Captured());
    expectSameBytes(await readFile(folder.path('out')), libxc);
    const output = new Captured();
    expect(await verifyVerb(await folder.write('xenopsd', whole.subarray(0, -20)), {}, output)).to.equal(1);
    expect(output.text).to.contain('the stream ends inside xenopsd');
  });

  it('a compressed file is named by each verb, with the command', async () => {
    const file = await folder.write('gz', gzipSync(readFixture('pv-save').subarray(0, 100_000)));
    const output = new Captured();
    expect(await verifyVerb(file, {}, output)).to.equal(2);
    expect(await inspectVerb(file, {}, output)).to.equal(2);
    const failed = (job: Promise<unknown>): Promise<unknown> =>
      job.then(
        () => 'nothing failed',
        (error: unknown) => error,
      );
    output.text += String(await failed(recoverVerb(file, folder.path('none'), new Captured())));
    output.text += String(
      await failed(convertVerb(file, folder.path('none'), { to: 'libxl' }, new Captured())),
    );
    expect(output.text.match(/gzip -dc FILE \| npx romulus verify -/g)).to.have.lengthOf(4);
  });
});
