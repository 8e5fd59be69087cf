/* What can be done about a payout, as dialogs: asking for one, and each of the decisions on its way. `done` gets the request as it is now. */

import { element, money, says } from "./format.js";
import { audited, changeDialog, field } from "./shell.js";
import { centsOf, dollars, noteField, post } from "./tracking-forms.js";
import { basisWords } from "./tracking-words.js";

const FEE_MOST = 10;
const TRANSACTION_MOST = 200;

const whose = ({ id, creator, amountCents }) => `payout request ${id} of ${creator}, ${money(amountCents)}`;
const capital = (words) => words[0].toUpperCase() + words.slice(1);

/** A creator asks for what is payable, or a part of it. */
export function requestPayout(balance, { done }) {
  const amount = dollars("amountCents", { cents: balance.payableCents, least: balance.minimumCents / 100, most: balance.payableCents / 100, required: true });
  const fee = balance.feeBasis > 0 ? ` A fee of ${basisWords(balance.feeBasis)} is usual.` : "";
  const words = says(`Asks for money that you have earned in completed campaigns: ${money(balance.payableCents)} at most, ${money(balance.minimumCents)} at least. An administrator decides; until then you can’t ask for another.${fee}`);
  return changeDialog("Request a payout", [field("Amount in dollars", amount), words], "Request it", async () => {
    const { payout, auditId } = await post("/tracking/payouts", { amountCents: centsOf(amount) });
    done(payout);
    return `Asked for ${money(payout.amountCents)}: request ${payout.id}.${audited(auditId)}`;
  });
}

const turned = async (payout, verb, body, done) => {
  const answer = await post(`/tracking/payouts/${payout.id}/${verb}`, body);
  done(answer.payout);
  return answer;
};

/** `feeBasis`: the usual fee; null where it is not known here, an empty field then leaves it to the server. */
export function approvePayout(payout, { done, feeBasis }) {
  const known = feeBasis !== null && feeBasis !== undefined;
  const fee = element("input", { name: "feeBasis", type: "number", required: known, min: "0", max: String(FEE_MOST), step: "0.01", value: known ? String(feeBasis / 100) : null, placeholder: "as set", inputmode: "decimal" });
  const words = says();
  const basis = () => (fee.value === "" ? null : Math.round(Number(fee.value) * 100));
  const say = () => {
    // Rounded down, as the server does it.
    const cents = Math.floor((payout.amountCents * basis()) / 10_000);
    words.textContent = `Approves ${whose(payout)}${basis() === null ? ", less the usual fee." : `: ${money(payout.amountCents - cents)} to pay out, ${money(cents)} fee.`}`;
  };
  fee.addEventListener("input", say);
  say();
  return changeDialog("Approve this payout?", [field("Fee in per cent", fee, `0 to ${FEE_MOST}, kept back from the amount.`), words], "Approve it", async () => {
    const { payout: now, auditId } = await turned(payout, "approve", basis() === null ? {} : { feeBasis: basis() }, done);
    return `Approved ${whose(payout)}: ${money(now.netCents)} to pay out.${audited(auditId)}`;
  });
}

export function completePayout(payout, { done }) {
  const transaction = element("input", { name: "transactionId", required: true, maxlength: String(TRANSACTION_MOST), autocomplete: "off", spellcheck: "false" });
  const words = `Notes that ${money(payout.netCents)} were sent to ${payout.creator}. Nothing is sent by this.`;
  return changeDialog("Was it paid?", [field("Transaction id", transaction, "What the bank or the payment provider gave for it."), says(words)], "Mark as paid", async () => {
    const { auditId } = await turned(payout, "complete", { transactionId: transaction.value.trim() }, done);
    return `Paid: ${whose(payout)}.${audited(auditId)}`;
  });
}

/** A decision with a note: reject, revert. */
function noted(payout, verb, { title, words, action, did }, { done }) {
  return changeDialog(title, [says(words), noteField("The creator sees it.")], action, async (form) => {
    const { auditId } = await turned(payout, verb, { note: form.elements.note.value.trim() }, done);
    return `${did}: ${whose(payout)}.${audited(auditId)}`;
  });
}

export const rejectPayout = (payout, more) => noted(payout, "reject", { title: "Reject this payout?", words: `${capital(whose(payout))}, is not paid. The money is payable again, the creator may ask anew.`, action: "Reject it", did: "Rejected" }, more);

export function revertPayout(payout, more) {
  const paid = payout.status === "COMPLETED";
  const words = paid ? `The money of ${whose(payout)}, came back (transaction ${payout.transactionId}). It is payable again.` : `Takes back the approval of ${whose(payout)}: it is to be decided anew.`;
  return noted(payout, "revert", { title: paid ? "Revert this payout?" : "Take back the approval?", words, action: paid ? "Revert it" : "Take it back", did: paid ? "Reverted" : "Back to be decided" }, more);
}
