// Certificates in their files: which set is taken, which is not, and what is said of their end.

import { copyFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect } from 'chai';
import { ChannelError } from '../../../src/channel/contract.js';
import { TlsFiles } from '../../../src/channel/credentials/tls-files.js';
import { Authority, read, type LeafFiles } from '../../support/authority.js';
import { captureLog } from '../../support/capture.js';
import { Cleanup } from '../../support/cleanup.js';
import { until } from '../../support/until.js';

const POLL_MS = 20;
const nothing = () => undefined;
const inDays = (days: number) => new Date(Date.now() + days * 24 * 3600 * 1000);

describe('channel/credentials/tls-files', () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  /** The files as a service has them, watched; `first` is what stands in them. */
  async function watched(made: (authority: Authority) => LeafFiles) {
    const directory = await cleanup.directory();
    const authority = new Authority(directory);
    const at = (name: string) => path.join(directory, name);
    const files = { cert: at('in-use.crt'), key: at('in-use.key'), ca: at('ca.crt') };
    const put = (leaf: LeafFiles, ...which: ('cert' | 'key')[]) => {
      for (const each of which) copyFileSync(leaf[each], files[each]);
    };
    const first = made(authority);
    put(first, 'cert', 'key');
    const { log, lines } = captureLog();
    const changes: unknown[] = [];
    const tls: TlsFiles = new TlsFiles(files, () => changes.push(tls.current), log, POLL_MS);
    cleanup.add(() => tls.close());
    const said = (text: string | RegExp) =>
      lines().filter(({ msg }) =>
        typeof text === 'string' ? String(msg).includes(text) : text.test(String(msg)),
      );
    return { directory, authority, files, put, first, tls, changes, said };
  }

  it('a new pair is taken when it is whole: half of it is not, and is said once', async () => {
    const { authority, put, first, tls, changes, said } = await watched((ca) => ca.issue());
    const next = authority.issue();
    put(next, 'cert');
    await until('it is said', () => said('the certificate in use stays').length > 0);
    expect(tls.current.cert).to.deep.equal(read(first).cert);
    // Looked at again and again, said once.
    await tls.reload();
    await tls.reload();
    expect(said('the certificate in use stays')).to.have.length(1);
    put(next, 'key');
    await until('it is taken', () => changes.length > 0);
    expect(tls.current).to.deep.include({ cert: read(next).cert, key: read(next).key });
    expect(said('a new certificate is in use')).to.have.length(1);
  });

  it('what is none, or has expired, is not taken, and the next good one is', async () => {
    const { authority, files, put, first, tls, changes, said } = await watched((ca) => ca.issue());
    writeFileSync(files.cert, 'no certificate');
    await until('said', () => said('the certificate in use stays').length === 1);
    const expired = authority.issue({ from: inDays(-2), until: inDays(-1) });
    put(expired, 'key', 'cert');
    await until('said', () => said(/stays.*has expired/).length === 1);
    expect(tls.current.cert).to.deep.equal(read(first).cert);
    expect(changes).to.deep.equal([]);
    put(authority.issue(), 'key', 'cert');
    await until('taken', () => changes.length === 1);
  });

  it('files that are replaced, by a rename or behind a link, are new files', async () => {
    const { directory, authority, files, tls, changes } = await watched((ca) => ca.issue());
    const next = authority.issue();
    renameSync(next.key, files.key);
    renameSync(next.cert, files.cert);
    await until('taken', () => changes.length === 1);
    const third = authority.issue();
    const link = (name: string, to: string) => {
      symlinkSync(to, path.join(directory, 'link'));
      renameSync(path.join(directory, 'link'), name);
    };
    link(files.key, third.key);
    link(files.cert, third.cert);
    await until('taken', () => changes.length === 2);
    expect(tls.current.cert).to.deep.equal(read(third).cert);
  });

  it('says the end of a certificate 14 days before, at once and not at each look; of the authority, too', async () => {
    const soon = await watched((ca) => ca.issue({ until: inDays(13) }));
    expect(soon.said(/in-use\.crt expires in 12 days/)).to.have.length(1);
    await soon.tls.reload();
    expect(soon.said('expires in')).to.have.length(1);
    const late = await watched((ca) => ca.issue({ until: inDays(20) }));
    expect(late.said('expires in')).to.have.length(0);
    const over = await watched((ca) => ca.issue({ from: inDays(-2), until: inDays(-1) }));
    expect(over.said('has expired: no link can be made').map(({ level }) => level)).to.deep.equal(['error']);
    const days = late.tls.expiries.map(({ certificate, expiresAtMs }) => {
      return [certificate, Math.round((expiresAtMs - Date.now()) / 86_400_000)];
    });
    expect(days).to.deep.equal([
      ['own', 20],
      ['authority', 365],
    ]);
    const directory = await cleanup.directory();
    const files = new Authority(directory, 'short', 7).issue();
    const { log, lines } = captureLog();
    const short = new TlsFiles(files, nothing, log, POLL_MS);
    cleanup.add(() => short.close());
    expect(lines().map(({ msg }) => String(msg))).to.deep.equal([
      `the authority in ${files.ca} expires in 6 days: no link can be made then`,
    ]);
  });

  it('while authorities change, the one that signed our own certificate counts', async () => {
    const directory = await cleanup.directory();
    const old = new Authority(directory, 'old', 7);
    const next = new Authority(directory, 'next', 300);
    const { cert, key } = next.issue();
    const ca = path.join(directory, 'both.crt');
    writeFileSync(
      ca,
      Buffer.concat([read(old.issue()).ca, read(next.issue()).ca].map((pem) => Buffer.from(pem))),
    );
    const tls = new TlsFiles({ cert, key, ca }, nothing, captureLog().log, POLL_MS);
    cleanup.add(() => tls.close());
    expect(tls.expiries[1]?.expiresAtMs).to.be.greaterThan(inDays(299).getTime());
  });

  it('files that cannot be used at all are a typed error', async () => {
    const directory = await cleanup.directory();
    const authority = new Authority(directory);
    const { log } = captureLog();
    const mixed = { ...authority.issue(), key: authority.issue().key };
    expect(() => new TlsFiles(mixed, nothing, log))
      .to.throw(ChannelError)
      .with.property('code', 'TLS');
    expect(() => new TlsFiles({ ...mixed, cert: '/nowhere' }, nothing, log)).to.throw(/ENOENT/);
  });
});
