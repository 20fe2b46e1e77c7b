// Who the other side of a TLS connection is. Both sides let TLS do the arithmetic and judge the outcome here, so that
// whoever is refused can be told why: a connection that TLS itself cuts says nothing.
//
//   signed by our authority, in its time, made for this use ─▶ OpenSSL says so; else TLS
//   of a name that is allowed                               ─▶ a subject alternative name; else NAME_REFUSED
//
// Only subject alternative names count, and a wildcard is none: a certificate is bound to a host.

import type { X509Certificate } from 'node:crypto';
import { isIP, type Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { asError, codeOf } from '../../errors.js';
import { ChannelError } from '../contract.js';

/** The HTTP header that says in words what ERROR_HEADER says as a code. */
export const REASON_HEADER = 'romulus-reason';
const REASON_MAX = 300;

/**
 * The other side's certificate, if it is good.
 * @throws ChannelError TLS
 */
export function trustedCertificate(socket: Socket): X509Certificate {
  if (!(socket instanceof TLSSocket)) throw new ChannelError('INTERNAL', 'no TLS where TLS was asked for');
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined) throw new ChannelError('TLS', 'it has shown no certificate');
  // A session from before carries the judgement of then. We never ask for one.
  if (socket.isSessionReused()) throw new ChannelError('TLS', 'it went on with an old TLS session');
  if (socket.authorized) return certificate;
  // Node's types say Error; it is the code.
  const told: unknown = socket.authorizationError;
  const cause = typeof told === 'string' ? told : codeOf(asError(told));
  const facts = { cause, names: namesOf(certificate), validTo: certificate.validTo };
  throw new ChannelError('TLS', `its certificate (${facts.names}) ${fault(cause, certificate)}`, facts);
}

/** @throws ChannelError NAME_REFUSED */
export function checkName(certificate: X509Certificate, allowed: readonly string[], role: string): void {
  if (allowed.some((name) => isNamed(certificate, name))) return;
  const facts = { names: namesOf(certificate), allowed: allowed.join(', ') };
  const wanted = allowed.length === 0 ? 'none is allowed' : `${facts.allowed} is allowed`;
  const message = `its certificate is for ${facts.names}; as ${role}, ${wanted}`;
  throw new ChannelError('NAME_REFUSED', message, facts);
}

function isNamed(certificate: X509Certificate, name: string): boolean {
  if (isIP(name) !== 0) return certificate.checkIP(name) !== undefined;
  return certificate.checkHost(name, { subject: 'never', wildcards: false }) !== undefined;
}

function namesOf(certificate: X509Certificate): string {
  return certificate.subjectAltName ?? 'no name';
}

function fault(cause: string, certificate: X509Certificate): string {
  switch (cause) {
    case 'CERT_HAS_EXPIRED':
      if (Date.parse(certificate.validTo) > Date.now()) return 'is signed by an authority that has expired';
      return `has expired on ${certificate.validTo}`;
    case 'CERT_NOT_YET_VALID':
      return `is not valid before ${certificate.validFrom} (or a clock is wrong)`;
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
    case 'UNABLE_TO_GET_ISSUER_CERT':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'CERT_SIGNATURE_FAILURE':
      return `is signed by an authority that is not in ca (${cause})`;
    case 'INVALID_PURPOSE':
      return 'is not made for this side (extended key usage)';
    default:
      return `is not good: ${cause}`;
  }
}

/** What may stand in an HTTP header, and in a log: of a stranger's words as well as of ours. */
export function headerText(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, REASON_MAX);
}
