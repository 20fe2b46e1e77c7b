// File descriptors: counted before they run out, and named when they do.

import { expect } from 'chai';
import { RomulusError } from '../../src/errors.js';
import { checkDescriptors, nameDescriptorLimit } from '../../src/report/descriptors.js';
import { ServiceError } from '../../src/report/error.js';
import { captureLog } from '../support/capture.js';

describe('file descriptors', () => {
  const domains = [{ hypervisor: { kind: 'qemu' } }, { hypervisor: { kind: 'embedded' } }] as const;

  it('are refused when too few, warned of when tight, and not spoken of else', () => {
    const { log, lines } = captureLog();
    expect(() => checkDescriptors(domains, log, 67)).to.throw(ServiceError, 'needs 68 for 2 domains');
    expect(lines()).to.deep.equal([]);
    checkDescriptors(domains, log, 68);
    expect(lines().map(({ level, limit, ample }) => [level, limit, ample])).to.deep.equal([
      ['warn', 68, 216],
    ]);
    checkDescriptors(domains, log, 216);
    checkDescriptors(domains, log, Infinity);
    expect(lines()).to.have.length(1);
  });

  it('are named where they ran out, however deep', () => {
    const system = Object.assign(new Error('EMFILE: too many open files'), { code: 'EMFILE' });
    const error = new RomulusError('FAILED', 'no file for the guest’s RAM', {}, { cause: system });
    const named = nameDescriptorLimit(error);
    expect(named).to.be.instanceOf(ServiceError).and.to.have.property('code', 'TOO_FEW_DESCRIPTORS');
    expect(named.message).to.match(/^no file for the guest’s RAM; this process has all the \d+ files open/);
    const other = new RomulusError('FAILED', 'else', {}, { cause: new Error('x') });
    expect(nameDescriptorLimit(other)).to.equal(other);
  });
});
