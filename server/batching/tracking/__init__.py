"""View tracking: creators submit posts to campaigns, views are counted, growth is paid from the campaign's budget.

money (pure: what a count is and what it earns), posts (pure: addresses of posts), store (roles, lock order), campaigns, submissions,
settlement (counts in, grants out, one transaction), reviews (counts that an admin judges), payouts, earnings (what creators read), checking
(every sum anew), sums (figures and alerts), upkeep (what is forgotten).
"""
